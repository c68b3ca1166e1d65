package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// ErrUnavailable ends a pass whose destination took nothing for as long as a
// batch is tried. Nothing is made a dead letter for it: the entries stay new.
var ErrUnavailable = errors.New("destination does not accept anything")

// waitingBatches is how many batches may wait to be put again for each that is being put.
const waitingBatches = 8

// lane is a way from pages to the destination. A pass has one for its walk, and
// one for the tails beside it, which so stand behind nothing of the walk.
//
// Its methods take two contexts. Once ctx, the pass's own, is done, no new put is
// started. work, that of batches in flight, outlives it by the grace, so that what
// was put when the pass was told to stop is still recorded.
type lane struct {
	*delivery
	sink  Sink
	group *errgroup.Group
	bytes int                 // most in flight
	slots *semaphore.Weighted // bytes in flight
	puts  *semaphore.Weighted // calls in flight, each until what it decided is recorded
}

// newLane returns a lane and the context for its methods, which ends when a batch
// fails for a reason that stops the pass.
func newLane(ctx context.Context, d *delivery, sink Sink, workers, bytes int) (*lane, context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	// A batch that waits to be put again must not keep others from being put.
	group.SetLimit(waitingBatches * workers)
	return &lane{
		delivery: d, sink: sink, group: group, bytes: bytes,
		slots: semaphore.NewWeighted(int64(bytes)), puts: semaphore.NewWeighted(int64(workers)),
	}, ctx
}

// put starts a batch, waiting for a worker and for room. It returns the reason
// why nothing more should be started, if there is one.
func (l *lane) put(ctx, work context.Context, batch []audit.Entry, pc *piece) error {
	size, oldest := 0, pc.oldest
	for i := range batch {
		size += batch[i].Size()
		oldest = min(oldest, batch[i].Timestamp)
	}
	l.mu.Lock()
	pc.oldest = oldest
	l.waiting(oldest)
	l.mu.Unlock()
	// No batch queues up before a worker is free: what waits is memory that the
	// garbage collector goes over again and again.
	if err := l.puts.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	l.puts.Release(1)
	weight := int64(min(size, l.bytes))
	if err := l.slots.Acquire(ctx, weight); err != nil {
		return context.Cause(ctx)
	}
	l.group.Go(func() error {
		defer l.slots.Release(weight)
		err := l.deliver(ctx, work, batch, l.p.opts.RetryFor, time.Time{})
		if err == nil {
			l.finish(pc)
		}
		return err
	})
	return nil
}

// deliver puts a batch until each of its entries has an outcome. What has none
// after the given time is deferred, if the destination accepts anything at all.
func (l *lane) deliver(ctx, work context.Context, batch []audit.Entry, patience time.Duration, since time.Time) error {
	var (
		began   = time.Now()
		backoff = 100 * time.Millisecond
		rest    = batch
	)
	for try := 1; ; try++ {
		unresolved, why, answered, err := l.round(ctx, work, rest, try)
		var stop *stopError
		if errors.As(err, &stop) {
			return stop.err
		}
		if len(unresolved) == 0 {
			return nil
		}
		if err != nil && !answered {
			l.count(func(s *Summary) { s.Repeated += len(unresolved) })
		}
		if time.Since(began) > patience {
			return l.giveUp(ctx, work, unresolved, why, err, patience, began, since, try)
		}
		l.p.log.Debug("putting again", "entries", len(unresolved), "try", try, "code", why[0].Code, "err", err)
		if err := l.p.wait(ctx, jitter(backoff)); err != nil {
			return err
		}
		backoff = min(backoff*2, 10*time.Second)
		rest = unresolved
	}
}

// stopError ends the pass rather than the attempt.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

// round puts entries once and records what was decided of them. It returns those
// that have no outcome yet, and why.
func (l *lane) round(ctx, work context.Context, entries []audit.Entry, try int) (unresolved []audit.Entry, why []audit.Verdict, answered bool, err error) {
	if err := l.puts.Acquire(ctx, 1); err != nil {
		return nil, nil, false, &stopError{context.Cause(ctx)}
	}
	defer l.puts.Release(1)
	if err := l.mayPut(ctx); err != nil {
		return nil, nil, false, &stopError{err}
	}
	if try > 1 {
		l.count(func(s *Summary) { s.Retries++ })
	}
	verdicts, answered, err := l.attempt(work, entries)
	records := make([]audit.Record, 0, len(entries))
	accepted := entries[:0:0]
	dead := 0
	for i, v := range verdicts {
		e := &entries[i]
		switch v.Status {
		case audit.Accepted:
			records = append(records, l.record(e, audit.Delivered, nil))
			if len(accepted) == i { // as a rule all of them are: no need for a copy
				accepted = entries[: i+1 : i+1]
			} else {
				accepted = append(accepted, *e)
			}
		case audit.Rejected:
			dead++
			records = append(records, l.record(e, audit.Dead, letter(e, audit.Dead, v, try)))
			l.p.log.Error("entry refused for good, kept as a dead letter", "id", e.ID, "code", v.Code, "reason", v.Reason)
		default:
			unresolved = append(unresolved, *e)
			why = append(why, v)
		}
	}
	if len(records) > 0 {
		if err := l.commit(work, records, accepted); err != nil {
			return nil, nil, answered, &stopError{err}
		}
		l.count(func(s *Summary) { s.Delivered += len(accepted); s.Dead += dead })
	}
	if audit.NeedsPerson(err) {
		return nil, nil, answered, &stopError{err}
	}
	return unresolved, why, answered, err
}

// attempt makes one put. answered tells whether the destination said anything at
// all of these entries.
func (l *lane) attempt(work context.Context, entries []audit.Entry) (verdicts []audit.Verdict, answered bool, err error) {
	begin := time.Now()
	verdicts, err = l.sink.Put(work, entries)
	l.p.opts.Observer.stage("put", begin)
	if len(verdicts) != len(entries) {
		return make([]audit.Verdict, len(entries)), false, fmt.Errorf("destination gave %d verdicts for %d entries", len(verdicts), len(entries))
	}
	for _, v := range verdicts {
		answered = answered || v.Status != audit.Retryable || v.Code != ""
		if v.Status == audit.Accepted {
			l.mu.Lock()
			l.accepted = time.Now()
			l.mu.Unlock()
		}
	}
	return verdicts, answered, err
}

// giveUp parks what could not be delivered in time. Where the destination took
// nothing of anybody meanwhile, it is down, and not the entries' fault: the pass
// ends. A batch of several is tried in halves first, so that one entry on which
// the destination chokes does not take the others with it.
//
// since is zero for a batch, and for its halves the moment since when the
// destination is known to have accepted something while the batch failed.
func (l *lane) giveUp(ctx, work context.Context, entries []audit.Entry, why []audit.Verdict, err error, patience time.Duration, began, since time.Time, tries int) error {
	if err != nil {
		switch {
		case !since.IsZero():
		case len(entries) == 1:
			// There is nothing to compare it with. To park it in an outage does no
			// harm: what is deferred becomes a dead letter only if others were accepted.
			since = began
		default:
			// What was accepted long ago says nothing of an outage that came later.
			since = time.Now().Add(-patience / 2)
			if !l.acceptedSince(since) {
				// Every call failed. Either the destination is down, or it chokes on one
				// of these: some of them by themselves will tell.
				var stop error
				if entries, why, stop = l.probe(ctx, work, entries, why, tries); stop != nil {
					return stop
				}
			}
		}
		if !l.acceptedSince(since) {
			return fmt.Errorf("%w for %s: %w", ErrUnavailable, patience.Round(time.Millisecond), err)
		}
		if len(entries) > 1 {
			half := len(entries) / 2
			if err := l.deliver(ctx, work, entries[:half], patience/4, since); err != nil {
				return err
			}
			return l.deliver(ctx, work, entries[half:], patience/4, since)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	records := make([]audit.Record, len(entries))
	for i := range entries {
		e := &entries[i]
		records[i] = l.record(e, audit.Deferred, letter(e, audit.Deferred, why[i], tries))
		l.p.log.Warn("entry deferred after its retries", "id", e.ID, "code", why[i].Code, "reason", why[i].Reason)
	}
	if err := l.commit(work, records, nil); err != nil {
		return err
	}
	l.count(func(s *Summary) { s.Deferred += len(entries) })
	return nil
}

// probe puts some of several entries by themselves: the first, the last, and one
// between, another one each time. It returns those that still have no outcome.
func (l *lane) probe(ctx, work context.Context, entries []audit.Entry, why []audit.Verdict, tries int) ([]audit.Entry, []audit.Verdict, error) {
	picked := map[int]bool{0: true, len(entries) - 1: true, rand.N(len(entries)): true}
	var rest []audit.Entry
	var reasons []audit.Verdict
	for i := range entries {
		if picked[i] {
			left, _, _, err := l.round(ctx, work, entries[i:i+1:i+1], tries)
			var stop *stopError
			if errors.As(err, &stop) {
				return nil, nil, stop.err
			}
			if len(left) == 0 {
				continue
			}
		}
		rest, reasons = append(rest, entries[i]), append(reasons, why[i])
	}
	return rest, reasons, nil
}

// jitter spreads a wait over the half below and above it.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d)
}
