package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/emf"
	"github.com/kong-cloudtrail/relay/internal/health"
)

const (
	tickEvery    = 250 * time.Millisecond
	marksEvery   = 2 * time.Second  // also how soon a ledger that fails is noticed while nothing else happens
	probeAfter   = 3 * time.Second  // after the start, for what nothing has asked by then
	probeAgain   = 30 * time.Second // between two probes
	probeWithin  = 20 * time.Second
	outagesEvery = time.Second     // those that have changed: verify and status of other processes ask the ledger
	countsEvery  = 5 * time.Second // also how soon dead letters show in the metrics
	checkEvery   = 2 * time.Second // of the settings of the ledger's server
	reachEvery   = 5 * time.Second // between two connections to Kong while nothing else asks it
	checkWithin  = 15 * time.Second
	emfEvery     = time.Minute
	sampleEvery  = 10 * time.Second
	tailsEvery   = 30 * time.Second // between lines about tails that follow each other
)

// operationConnect is the name of a connection to Kong without a request.
const operationConnect = "connect"

// report notes the outcome of a call to a dependency.
func (s *server) report(d health.Dependency, operation string, err error) {
	now := time.Now()
	if d == health.Kong {
		if err == nil {
			s.lastRead.Store(now.Unix())
			s.health.Recovered(now, d, operationConnect)
		}
		s.reportLog(err)
	}
	s.health.Report(now, d, operation, err)
}

// followHealth keeps the states of the dependencies, and what is shown of the
// ledger, up to date until ctx ends.
func (s *server) followHealth(ctx context.Context) error {
	var wait sync.WaitGroup
	defer wait.Wait()
	for _, job := range []struct {
		every time.Duration
		do    func(context.Context)
	}{
		{tickEvery, s.tick}, {marksEvery, s.readMarks}, {countsEvery, s.readCounts}, {outagesEvery, s.storeOutages}, {sampleEvery, s.sample},
		{checkEvery, s.checkLedger}, {reachEvery, s.checkKong}, {canaryTick, s.followRecording},
	} {
		wait.Go(func() { repeat(ctx, job.every, job.do) })
	}
	for _, d := range []health.Dependency{health.Kong, health.Ledger, health.Destination} {
		wait.Go(func() { s.probe(ctx, d) })
	}
	if s.app.Settings.EMF {
		wait.Go(func() { repeat(ctx, emfEvery, s.writeEMF) })
	}
	<-ctx.Done()
	return ctx.Err()
}

// repeat does something at once and then at intervals until ctx ends.
func repeat(ctx context.Context, every time.Duration, do func(context.Context)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		do(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *server) tick(context.Context) {
	s.health.SetNextTry(s.scheduler.NextTry())
	now := time.Now()
	s.health.Tick(now)
	s.logTails(now)
}

// probe calls a dependency that nothing has called for some time, unless it is known to
// work. That may be a destination to which there is nothing to put.
func (s *server) probe(ctx context.Context, d health.Dependency) {
	for wait := probeAfter; ; wait = probeAgain {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if state := s.health.State(d); state.Status == health.OK || time.Since(state.Asked) < wait {
			continue
		}
		within, cancel := context.WithTimeout(ctx, probeWithin)
		err := s.app.Probe(within, d)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			s.health.Forget(time.Now(), d)
		}
	}
}

func (s *server) storeOutages(ctx context.Context) {
	list := s.health.TakeOutages()
	for i := range list {
		within, cancel := context.WithTimeout(ctx, marksEvery)
		err := s.app.Store.PutOutage(within, list[i])
		cancel()
		if err != nil {
			s.log.Debug("outages not stored", "err", err)
			s.health.GiveBack(list[i:])
			return
		}
	}
	if len(list) > 0 {
		s.ledger.update(func(l *ledgerRead) { l.detailsAt = time.Time{} })
	}
}

// checkKong connects to Kong if nothing has asked it lately. A Kong that is gone sends no
// triggers, so otherwise only the next scheduled pass would find that it cannot be reached.
func (s *server) checkKong(ctx context.Context) {
	was := s.health.State(health.Kong)
	if time.Since(was.Asked) < reachEvery/2 {
		return
	}
	if err := s.app.Kong.Reach(ctx); err == nil {
		s.health.Recovered(time.Now(), health.Kong, operationConnect)
		if was.Status == health.Failing && s.health.State(health.Kong).Status == health.OK {
			s.runner.RequestPoll() // which shows whether everything is delivered again
		}
	} else if ctx.Err() == nil {
		s.report(health.Kong, operationConnect, err)
	}
}

// checkLedger looks at the settings of the ledger's server, which somebody may change
// while the relay runs. It ignores a server that does not answer, which shows elsewhere.
func (s *server) checkLedger(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	warnings, err := s.app.CheckLedger(ctx)
	switch {
	case errors.Is(err, audit.ErrEvicting):
		s.metrics.mayForget.Set(1)
		s.report(health.Ledger, "check", err)
	case err == nil:
		s.metrics.mayForget.Set(float64(min(len(warnings), 1)))
		s.report(health.Ledger, "check", nil)
		before := s.warnings.Swap(&warnings)
		if before == nil {
			return // said as the ledger was bound
		}
		for _, w := range warnings {
			if !slices.Contains(*before, w) {
				s.app.WarnOfLedger(w)
			}
		}
		if len(warnings) == 0 && len(*before) > 0 {
			s.log.Info("ledger keeps what it must again")
		}
	}
}

// readMarks reads from the ledger when a pass was last complete, which may have been made
// before this process started, or by another relay.
func (s *server) readMarks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*marksEvery)
	defer cancel()
	marks, err := s.app.Store.Marks(ctx)
	if forgot := audit.LedgerForgot(err); s.ledgerForgot.Swap(forgot) != forgot && forgot {
		s.runner.RequestRerun() // the pass says it, and reads everything again
	}
	if err != nil {
		s.log.Debug("marks not read", "err", err) // the ledger's state says it
		return
	}
	s.ledger.update(func(l *ledgerRead) { l.marks, l.marksAt = marks, time.Now() })
	if marks.Completed > 0 {
		s.metrics.complete(time.Unix(marks.Completed, 0))
	}
}

// readCounts reads the counts of undelivered entries from the ledger, for metrics and
// status, so that a scrape makes no call to the ledger.
func (s *server) readCounts(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, countsEvery)
	defer cancel()
	counts, err := s.app.Store.UndeliveredCounts(ctx)
	if err != nil {
		s.log.Debug("undelivered entries not counted", "err", err) // the ledger's state says it
		return
	}
	s.ledger.update(func(l *ledgerRead) {
		if l.counted && l.counts != counts {
			l.detailsAt = time.Time{}
			s.updates.Add(1)
		}
		l.counts, l.counted = counts, true
	})
}

// oldestUndelivered returns the time of the oldest known entry that is neither delivered
// nor rejected permanently, or since when Kong could not be read; zero if neither is the
// case.
func (s *server) oldestUndelivered() time.Time {
	oldest := app.UnixTime(s.metrics.oldestPending.Load())
	earlier := func(t time.Time) {
		if !t.IsZero() && (oldest.IsZero() || t.Before(oldest)) {
			oldest = t
		}
	}
	earlier(s.ledger.read().counts.OldestDeferred)
	if s.health.State(health.Kong).Status == health.Failing {
		if read := s.lastRead.Load(); read > 0 {
			earlier(time.Unix(read, 0))
		} else {
			earlier(s.metrics.lastComplete())
		}
	}
	return oldest
}

// writeEMF writes the metrics that alarms of CloudWatch look at.
func (s *server) writeEMF(context.Context) {
	now := time.Now()
	u := s.ledger.read().counts
	_, missing := s.scheduler.Counts()
	metrics := []emf.Metric{
		emf.Count(emf.EntriesDelivered, s.metrics.count.Swap(0)), emf.Count(emf.PassFailures, s.metrics.failures.Swap(0)),
		emf.Age(emf.LastCompletePassAge, now, s.metrics.lastComplete()), emf.Age(emf.OldestUndeliveredAge, now, s.oldestUndelivered()),
		emf.Count(emf.DeadLetters, u.Dead), emf.Count(emf.Deferred, u.Deferred), emf.Count(emf.AnnouncedMissing, missing),
	}
	if s.app.Settings.Objects {
		metrics = append(metrics, s.changes.Take()...)
	}
	out := s.opts.Stdout
	if s.app.Settings.EventsToStdout() {
		out = s.opts.Stderr
	}
	if err := emf.Write(out, now, s.app.Settings.Source, metrics); err != nil {
		s.log.Warn("metrics not written", "err", err)
	}
}

// sample notes how far delivery is behind, for the chart of the status page.
func (s *server) sample(context.Context) {
	now := time.Now()
	behind := time.Duration(0)
	if oldest := s.oldestUndelivered(); !oldest.IsZero() {
		behind = max(0, now.Sub(oldest))
	}
	s.freshness.Add(now, behind)
}
