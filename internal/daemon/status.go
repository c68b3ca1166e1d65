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
	statusMost   = 2 * time.Second  // how long a status waits for the ledger; opsclient waits 3 s for the status
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
	s.endedPasses.add(maxPasses, p)
}

// ledgerCache holds what was last read from the ledger. It is safe for concurrent use.
type ledgerCache struct {
	mu   sync.Mutex
	last ledgerRead
}

// ledgerRead is what was read from the ledger, and when; the zero time: it is to be read.
type ledgerRead struct {
	marks     audit.Marks
	marksAt   time.Time
	counts    audit.UndeliveredCounts
	counted   bool
	details   app.Status // undelivered entries by reason, and outages
	detailsAt time.Time
}

func (c *ledgerCache) read() ledgerRead {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

func (c *ledgerCache) update(f func(*ledgerRead)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.last)
}

// refresh reads from the ledger what a status shows of it. If the ledger fails, what was
// read before stays.
func (s *server) refresh(ctx context.Context, now time.Time) {
	if s.health.State(health.Ledger).Status == health.Failing {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statusMost)
	defer cancel()
	if now.Sub(s.ledger.read().marksAt) >= marksFresh {
		s.readMarks(ctx)
	}
	s.readCounts(ctx)
	if now.Sub(s.ledger.read().detailsAt) <= detailsEvery {
		return
	}
	read := app.Status{At: now}
	if err := s.app.AddDetails(ctx, &read); err != nil {
		s.log.Debug("undelivered entries and outages not read", "err", err)
		return
	}
	s.ledger.update(func(l *ledgerRead) { l.details, l.detailsAt = read, now })
}

func (s *server) status(ctx context.Context) app.Status {
	now := time.Now().UTC()
	s.refresh(ctx, now)
	ledger := s.ledger.read()
	details, u := &ledger.details, ledger.counts
	st := app.Status{
		From: "relay", At: now, Version: s.opts.Version, StartedAt: s.metrics.start.UTC(), Names: app.NamesOf(&s.app.Settings),
		Dependencies: s.health.States(), Passes: s.endedPasses.all(), PassRunning: s.running.Load() > 0,
		Dead: u.Dead, Deferred: u.Deferred, Undelivered: details.Undelivered, Outages: outagesNow(details.Outages, s.health.States()),
		Lost: s.scheduler.Missing(maxMissing), Settings: s.app.Settings.OnStatusPage(),
		OldestUndelivered: s.oldestUndelivered().UTC(),
	}
	if w := s.warnings.Load(); w != nil {
		st.Warnings = *w
	}
	if kept := s.recording.kept(); kept > 0 && kept < retentionLeast {
		st.Warnings = append(slices.Clone(st.Warnings), "kong keeps entries for "+kept.String()+" only: "+hintRetention)
	}
	st.SetMarks(&ledger.marks)
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
