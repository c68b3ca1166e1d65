package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// ErrUnavailable ends a pass whose destination accepted nothing for as long as a
// batch is tried. Nothing is rejected or deferred for it: the entries stay new.
var ErrUnavailable = errors.New("destination does not accept anything")

const (
	waitingBatches = 8 // batches that may wait to be put again, for each that is being put
	maxLogged      = 5 // dead letters of a call that the log names one by one
	fewBatches     = 3 // more batches than this that fail together show that the destination is down
	firstBackoff   = 100 * time.Millisecond
	maxBackoff     = 10 * time.Second // of a batch that fails while others are accepted
)

// Workers is a worker pool: it puts batches into the destination. A pass has one
// for its walk. A tail beside it has another one, so that it does not wait for the
// walk's batches.
//
// One goroutine calls its exported methods, with the context that [Delivery.NewWorkers]
// returned. Once that is done, no new put is started.
type Workers struct {
	d    *Delivery
	dest Destination
	// work is the context of calls. It outlives that of the methods, so that what was
	// put when the pass was told to stop is still recorded.
	work    context.Context //nolint:containedctx // as in an errgroup: the workers live no longer
	group   *errgroup.Group
	limit   int                 // bytes in flight, at most
	bytes   *semaphore.Weighted // bytes in flight
	puts    *semaphore.Weighted // calls in flight, each until its verdicts are recorded
	retries retryPool

	filling  filling       // the batch that Add fills
	held     held          // what Add holds back
	deferred deferredTries // of PutDeferred
}

// NewWorkers returns a pool of n workers with at most so many bytes in flight, and the
// context for its methods, which ends with ctx and when a batch fails for a reason
// that stops the pass. work is the context of the calls to dest and ledger. It must
// outlive ctx for as long as calls in flight are to be waited for.
func (d *Delivery) NewWorkers(ctx, work context.Context, dest Destination, n, bytes int) (*Workers, context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	// A batch that waits to be put again must not keep others from being put.
	group.SetLimit(waitingBatches * n)
	return &Workers{
		d: d, dest: dest, work: work, group: group, limit: bytes,
		bytes: semaphore.NewWeighted(int64(bytes)), puts: semaphore.NewWeighted(int64(n)),
		retries: retryPool{wake: make(chan struct{}, 1)}, held: held{ids: map[string]bool{}},
	}, ctx
}

// Wait waits until every batch has an outcome, and returns the reason why one has
// none: [ErrUnavailable], *audit.SettingsError, an error of the ledger or the cause of
// the contexts. Nothing may be added any more.
func (w *Workers) Wait() error {
	w.retries.drain()
	return w.group.Wait()
}

// put starts a batch, waiting for a worker and for room. It returns the reason
// why nothing more should be started, if there is one.
func (w *Workers) put(ctx context.Context, entries []audit.Entry, s *slot) error {
	size, from := 0, s.from
	for i := range entries {
		size += entries[i].Size()
		from = min(from, entries[i].Timestamp)
	}
	w.d.mu.Lock()
	s.from, s.left = from, len(entries)
	w.d.pending(from)
	w.d.mu.Unlock()
	// Wait for a worker first, so that no batches queue up: the garbage collector would scan
	// their memory again and again.
	if err := w.puts.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	w.puts.Release(1)
	s.weight = min(size, w.limit)
	if err := w.bytes.Acquire(ctx, int64(s.weight)); err != nil {
		return context.Cause(ctx)
	}
	w.retries.begin()
	w.group.Go(w.delivering(ctx, newBatch(entries, s, w.d.opts.RetryFor)))
	return nil
}

// delivering returns the body of a goroutine that delivers a batch, and whatever
// else is to be put again.
func (w *Workers) delivering(ctx context.Context, b *batch) func() error {
	return func() error {
		err := w.deliver(ctx, b)
		w.retries.end()
		if err != nil {
			return err
		}
		return w.putRetries(ctx)
	}
}

// deliver puts a batch until each of its entries has an outcome or is left to the
// retry pool.
func (w *Workers) deliver(ctx context.Context, b *batch) error {
	for backoff := firstBackoff; ; {
		r, err := w.round(ctx, b)
		if err != nil || r.left == nil {
			return err
		}
		if r.failure == nil {
			return w.retry(r.left)
		}
		b = r.left
		closed := w.d.gate.closedFor()
		if closed >= w.d.opts.RetryFor || closed == 0 && time.Since(b.patienceStart) > b.patience {
			if b, err = w.giveUp(ctx, b, r.failure, closed); err != nil || b == nil {
				return err
			}
		}
		w.d.log.Debug("putting again", "entries", len(b.entries), "code", b.past[0].last.Code, "err", r.failure)
		if !r.alone {
			continue // round waits at the gate
		}
		if err := sleep(ctx, jitter(backoff), nil); err != nil {
			return err
		}
		backoff = min(backoff*2, maxBackoff)
	}
}

// result is the outcome of a call.
type result struct {
	left    *batch // entries that have no outcome; nil if there are none
	failure error  // of the call; nil if the destination answered
	alone   bool   // the call failed although others were accepted: it has to wait by itself
}

// round puts a batch once and records what follows. Its error ends the pass.
func (w *Workers) round(ctx context.Context, b *batch) (result, error) {
	if err := w.puts.Acquire(ctx, 1); err != nil {
		return result{}, context.Cause(ctx)
	}
	defer w.puts.Release(1)
	c, err := w.d.gate.enter(ctx)
	if err != nil {
		return result{}, err
	}
	if err := w.d.mayPut(ctx); err != nil {
		w.d.gate.leave(c, cancelled, false)
		return result{}, err
	}
	if b.past != nil && !b.past[0].isDeferred() {
		w.d.count(func(s *Counts) { s.RetriedCalls++ })
	}
	verdicts, failure := w.attempt(b.entries)
	alone := w.noteFailure(b, w.d.gate.leave(c, resultOf(verdicts, failure), !b.suspect), failure)
	made := w.d.decide(b, verdicts, failure)
	if len(made.records) > 0 {
		w.d.logDead(made.dead)
		if err := w.d.commit(w.work, made.records, made.accepted); err != nil {
			return result{}, err
		}
	}
	w.resolve(b, made.left)
	if audit.NeedsPerson(failure) {
		return result{}, failure
	}
	w.d.count(func(s *Counts) { s.Repeated += answersLost(verdicts) })
	return result{left: made.left, failure: failure, alone: alone}, nil
}

// noteFailure notes that a call for a batch failed, and makes the batch suspect if the destination
// accepted others since its failure before. It reports whether to wait apart from the gate.
func (w *Workers) noteFailure(b *batch, alone bool, failure error) bool {
	if failure == nil || audit.IsDestinationError(failure) {
		return false
	}
	started, latest := w.d.gate.progress()
	if b.failedAt > 0 && latest > b.failedAt {
		b.suspect = true
	}
	b.failedAt = started
	return alone || b.suspect
}

// attempt makes one call.
func (w *Workers) attempt(entries []audit.Entry) ([]audit.Verdict, error) {
	begin := time.Now()
	verdicts, err := w.dest.Put(w.work, entries)
	w.d.opts.Observer.stage("put", begin)
	if len(verdicts) != len(entries) {
		return make([]audit.Verdict, len(entries)), fmt.Errorf("destination gave %d verdicts for %d entries", len(verdicts), len(entries))
	}
	return verdicts, err
}

// resultOf returns a call's result for the gate.
func resultOf(verdicts []audit.Verdict, failure error) callResult {
	rejected := false
	for _, v := range verdicts {
		if v.Status == audit.Accepted {
			return accepting
		}
		rejected = rejected || v.Status == audit.Rejected
	}
	switch {
	case failure == nil && (rejected || len(verdicts) <= fewBatches):
		return answered
	case audit.IsDestinationError(failure):
		return unavailable
	}
	return failed
}

// answersLost counts the entries to put again that the destination may have accepted.
func answersLost(verdicts []audit.Verdict) (n int) {
	for _, v := range verdicts {
		if v.Status == audit.Retryable && v.AnswerLost {
			n++
		}
	}
	return n
}

// resolve notes that all entries of a batch, except those left, have an outcome.
func (w *Workers) resolve(b, left *batch) {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if left == nil && b.past == nil {
		w.free(b.slot, len(b.entries), b.slot.weight)
		return
	}
	skip := 0 // entries of left that were met; they are in the batch's order
	for i := range b.entries {
		e, s := &b.entries[i], b.of(i).slot
		switch {
		case left != nil && skip < len(left.entries) && left.entries[skip].ID == e.ID:
			skip++
		case s != nil:
			w.free(s, 1, e.Size())
		}
	}
}

// free notes that n entries of a slot, of some size, have an outcome, and makes room for
// others. w.d.mu is held.
func (w *Workers) free(s *slot, n, size int) {
	freed := min(size, s.weight)
	if s.left -= n; s.left == 0 {
		freed = s.weight
		w.d.complete(s)
	}
	s.weight -= freed
	w.bytes.Release(int64(freed))
}

// logDead logs the entries that become dead letters.
func (d *Delivery) logDead(dead []*audit.Undelivered) {
	for i, u := range dead {
		if i == maxLogged {
			d.log.Error("more entries rejected permanently, kept as dead letters", "entries", len(dead)-i)
			return
		}
		d.log.Error("entry rejected permanently, kept as a dead letter", "id", u.Entry.ID, "code", u.Code, "reason", u.Reason)
	}
}
