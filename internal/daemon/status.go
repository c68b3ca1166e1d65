package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/health"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

const (
	maxPasses    = 12
	maxMissing   = 20
	detailsEvery = 15 * time.Second // how long what is read from the ledger for a status is shown
	detailsMost  = 2 * time.Second
	marksFresh   = 250 * time.Millisecond
)

// history is the passes that ended last, but for those that found nothing new.
type history struct {
	mu   sync.Mutex
	list []app.PassStatus // newest first
}

func (h *history) add(now time.Time, s *pipeline.Summary, err error) {
	if err == nil && s.New == 0 && s.Kind != audit.Reconcile {
		return
	}
	p := app.PassStatus{Kind: string(s.Kind), EndedAt: now.UTC().Truncate(time.Second), Seconds: s.Seconds, Pages: s.Pages, Read: s.Read, New: s.New, Delivered: s.Delivered}
	if s.Full {
		p.Kind = "full " + p.Kind
	}
	if err != nil {
		p.Err = health.Clean(err.Error())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = slices.Insert(h.list, 0, p)
	h.list = h.list[:min(len(h.list), maxPasses)]
}

func (h *history) passes() []app.PassStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.list)
}

// snapshot is what was last read from the ledger for a status. One request at a time
// reads it, however many people look.
type snapshot struct {
	mu      sync.Mutex
	at      time.Time
	details app.Status
}

// details returns the undelivered entries by reason and the outages, as they were a
// few seconds ago at most.
func (s *server) details(ctx context.Context, now time.Time) app.Status {
	s.snapshot.mu.Lock()
	defer s.snapshot.mu.Unlock()
	if now.Sub(s.snapshot.at) > detailsEvery {
		ctx, cancel := context.WithTimeout(ctx, detailsMost)
		defer cancel()
		s.snapshot.at = now
		fresh := app.Status{At: now}
		if err := s.app.AddDetails(ctx, &fresh); err == nil {
			s.snapshot.details = fresh
		}
	}
	return s.snapshot.details
}

// freshMarks returns the marks as they were a moment ago, or when they could last be read.
func (s *server) freshMarks(ctx context.Context) audit.Marks {
	s.marksMu.Lock()
	marks, at := s.marks, s.marksAt
	s.marksMu.Unlock()
	if time.Since(at) < marksFresh || s.health.State(health.Ledger).Status == health.Failing {
		return marks
	}
	s.readMarks(ctx)
	s.marksMu.Lock()
	defer s.marksMu.Unlock()
	return s.marks
}

// status returns how things stand.
func (s *server) status(ctx context.Context) app.Status {
	now := time.Now().UTC()
	details := s.details(ctx, now)
	marks := s.freshMarks(ctx)
	u := s.undelivered()
	st := app.Status{
		From: "relay", At: now, Version: s.opts.Version, StartedAt: s.metrics.start.UTC(), Names: app.NamesOf(&s.app.Settings),
		Dependencies: s.health.States(), Passes: s.history.passes(), PassRunning: s.running.Load() > 0,
		Dead: u.dead, Deferred: u.deferred, Undelivered: details.Undelivered, Outages: outagesNow(details.Outages, s.health.States()),
		Lost: s.scheduler.Missing(maxMissing), Settings: s.app.Settings.OnStatusPage(),
		OldestUndelivered: s.oldestUndelivered().UTC(),
	}
	if s.oldestUndelivered().IsZero() {
		st.OldestUndelivered = time.Time{}
	}
	st.SetMarks(&marks)
	st.Waiting, st.Missing = s.scheduler.Counts()
	st.Judge()
	return st
}

// outagesNow leaves out of the ledger's outages nothing, but adds those under way that
// the ledger does not know yet.
func outagesNow(stored []audit.Outage, states []health.State) []audit.Outage {
	list := slices.Clone(stored)
	for _, state := range states {
		if state.Status != health.Failing {
			continue
		}
		known := slices.ContainsFunc(list, func(o audit.Outage) bool {
			return o.Dependency == string(state.Dependency) && o.From.UnixMilli() == state.Since.UnixMilli()
		})
		if !known {
			list = slices.Insert(list, 0, audit.Outage{Dependency: string(state.Dependency), Cause: state.Cause, From: state.Since.UTC(), Seen: state.Since.UTC()})
		}
	}
	return list
}
