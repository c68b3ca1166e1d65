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
	detailsEvery = 15 * time.Second // how long undelivered entries and outages are shown before they are read again
	statusMost   = 2 * time.Second  // that a status waits for the ledger; who asks waits for 3 s
	marksFresh   = 250 * time.Millisecond
)

// noteEnded notes a pass for the status, unless it found nothing new.
func (s *server) noteEnded(now time.Time, sum *pipeline.Summary, err error) {
	if err == nil && sum.New == 0 && sum.Kind != audit.Reconcile {
		return
	}
	p := app.PassStatus{Kind: string(sum.Kind), EndedAt: now.UTC().Truncate(time.Second), Seconds: sum.Seconds, Pages: sum.Pages, Read: sum.Read, New: sum.New, Delivered: sum.Delivered}
	if sum.Full {
		p.Kind = "full " + p.Kind
	}
	if err != nil {
		p.Err = health.Clean(err.Error())
	}
	s.history.add(maxPasses, p)
}

// details are the undelivered entries by reason and the outages, as they were last
// read from the ledger.
type details struct {
	mu   sync.Mutex
	at   time.Time // when they were read; zero: they are to be read again
	read app.Status
}

// expire makes the next status read them again.
func (d *details) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = time.Time{}
}

// last returns what was last read, and whether it may be shown still.
func (d *details) last(now time.Time) (read app.Status, fresh bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.read, now.Sub(d.at) <= detailsEvery
}

func (d *details) set(now time.Time, read *app.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at, d.read = now, *read
}

// refresh reads from the ledger what a status shows of it. If the ledger fails, what was
// read before stays.
func (s *server) refresh(ctx context.Context, now time.Time) {
	if s.health.State(health.Ledger).Status == health.Failing {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statusMost)
	defer cancel()
	s.marksMu.Lock()
	at := s.marksAt
	s.marksMu.Unlock()
	if now.Sub(at) >= marksFresh {
		s.readMarks(ctx)
	}
	s.readCounts(ctx)
	if _, fresh := s.details.last(now); fresh {
		return
	}
	read := app.Status{At: now}
	if err := s.app.AddDetails(ctx, &read); err != nil {
		s.log.Debug("undelivered entries and outages not read", "err", err)
		return
	}
	s.details.set(now, &read)
}

// status returns the relay's status.
func (s *server) status(ctx context.Context) app.Status {
	now := time.Now().UTC()
	s.refresh(ctx, now)
	s.marksMu.Lock()
	marks := s.marks
	s.marksMu.Unlock()
	details, _ := s.details.last(now)
	u := s.undelivered()
	st := app.Status{
		From: "relay", At: now, Version: s.opts.Version, StartedAt: s.metrics.start.UTC(), Names: app.NamesOf(&s.app.Settings),
		Dependencies: s.health.States(), Passes: s.history.all(), PassRunning: s.running.Load() > 0,
		Dead: u.dead, Deferred: u.deferred, Undelivered: details.Undelivered, Outages: outagesNow(details.Outages, s.health.States()),
		Lost: s.scheduler.Missing(maxMissing), Settings: s.app.Settings.OnStatusPage(),
		OldestUndelivered: s.oldestUndelivered().UTC(),
	}
	if w := s.warnings.Load(); w != nil {
		st.Warnings = *w
	}
	if kept := s.recording.kept(); kept > 0 && kept < retentionLeast {
		st.Warnings = append(slices.Clone(st.Warnings), "kong keeps entries for "+kept.String()+" only: "+hintRetention)
	}
	st.SetMarks(&marks)
	st.Waiting, st.Missing = s.scheduler.Counts()
	st.Judge()
	return st
}

// outagesNow returns the ledger's outages and those under way that the ledger does not know
// yet.
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
