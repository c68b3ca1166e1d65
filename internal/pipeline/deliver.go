package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// ErrUnavailable ends a pass whose destination took nothing for as long as a
// batch is tried. Nothing is condemned for it: the entries stay new.
var ErrUnavailable = errors.New("destination does not accept anything")

// waitingBatches is how many batches may wait to be put again for each that is being put.
const waitingBatches = 8

// delivery puts and records the batches of one pass.
//
// Its methods take two contexts. Once ctx, the pass's own, is done, no new put is
// started. work, that of batches in flight, outlives it by the grace, so that what
// was put when the pass was told to stop is still recorded.
type delivery struct {
	p     *Pipeline
	group *errgroup.Group
	slots *semaphore.Weighted // bytes in flight
	puts  *semaphore.Weighted // calls in flight, each until what it decided is recorded
	valid func() error        // whether the lease is still held
	keep  func(e *audit.Entry) time.Duration

	mu       sync.Mutex
	flight   map[string]bool // ids from being handed over until they are recorded
	pieces   []*piece        // batches in reading order, from the first unfinished one
	oldest   int64           // least timestamp of those that are unfinished; 0 if none is
	popped   int             // finished batches that are gone from pieces
	through  int64           // timestamp up to which the log has been read, in order
	pages    []pageEnd       // ends of pages that are not safe yet, in orders other than oldest first
	offset   string          // token after the last page that is
	accepted time.Time       // when the destination last accepted something
	stuck    chan struct{}   // closed once a ledger that failed to record does so again; nil while it does
	sum      Summary
}

// piece is a batch's place in reading order.
type piece struct {
	first  int64 // timestamp of its first entry
	oldest int64 // least timestamp in it, once it is whole
	done   bool
}

// pageEnd is a page's end: safe once that many batches are finished.
type pageEnd struct {
	offset  string
	batches int
}

// newDelivery returns a delivery and the context for its methods, which ends when a
// batch fails for a reason that stops the pass.
func newDelivery(ctx context.Context, p *Pipeline, valid func() error, keep func(*audit.Entry) time.Duration) (*delivery, context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	// A batch that waits to be put again must not keep others from being put.
	group.SetLimit(waitingBatches * p.opts.Workers)
	return &delivery{
		p: p, group: group, slots: semaphore.NewWeighted(int64(p.opts.FlightBytes)),
		puts:  semaphore.NewWeighted(int64(p.opts.Workers)),
		valid: valid, keep: keep, flight: map[string]bool{},
	}, ctx
}

// claim marks an entry as in flight, unless it is already.
func (d *delivery) claim(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.flight)
	d.flight[id] = true
	return len(d.flight) > n
}

// unclaimed returns the entries that are not in flight.
func (d *delivery) unclaimed(entries []audit.Entry) []audit.Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.ContainsFunc(entries, func(e audit.Entry) bool { return d.flight[e.ID] }) {
		return entries
	}
	kept := make([]audit.Entry, 0, len(entries))
	for i := range entries {
		if !d.flight[entries[i].ID] {
			kept = append(kept, entries[i])
		}
	}
	return kept
}

// place reserves the next place in reading order.
func (d *delivery) place(first int64) *piece {
	d.mu.Lock()
	defer d.mu.Unlock()
	pc := &piece{first: first, oldest: first}
	d.pieces = append(d.pieces, pc)
	d.waiting(first)
	return pc
}

// waiting takes note that an entry waits, and tells the observer if none is
// older. d.mu is held.
func (d *delivery) waiting(timestamp int64) {
	if d.oldest != 0 && timestamp >= d.oldest {
		return
	}
	d.oldest = timestamp
	if f := d.p.opts.Observer.Waiting; f != nil {
		f(d.oldest)
	}
}

// put starts a batch, waiting for a worker and for room. It returns the reason
// why nothing more should be started, if there is one.
func (d *delivery) put(ctx, work context.Context, batch []audit.Entry, pc *piece) error {
	size, oldest := 0, pc.oldest
	for i := range batch {
		size += batch[i].Size()
		oldest = min(oldest, batch[i].Timestamp)
	}
	d.mu.Lock()
	pc.oldest = oldest
	d.waiting(oldest)
	d.mu.Unlock()
	// No batch queues up before a worker is free, or a tail in the middle of a
	// reconcile would stand behind all of them.
	if err := d.puts.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	d.puts.Release(1)
	weight := int64(min(size, d.p.opts.FlightBytes))
	if err := d.slots.Acquire(ctx, weight); err != nil {
		return context.Cause(ctx)
	}
	d.group.Go(func() error {
		defer d.slots.Release(weight)
		err := d.deliver(ctx, work, batch, d.p.opts.RetryFor, time.Time{})
		if err == nil {
			d.finish(pc)
		}
		return err
	})
	return nil
}

func (d *delivery) finish(pc *piece) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pc.done = true
	for len(d.pieces) > 0 && d.pieces[0].done {
		d.pieces = d.pieces[1:]
		d.popped++
	}
	if pc.oldest != d.oldest {
		return
	}
	d.oldest = 0
	for _, other := range d.pieces {
		if !other.done && (d.oldest == 0 || other.oldest < d.oldest) {
			d.oldest = other.oldest
		}
	}
	if f := d.p.opts.Observer.Waiting; f != nil {
		f(d.oldest)
	}
}

// read notes that a page has been handed over: everything up to a timestamp, in
// order, or everything up to an offset.
func (d *delivery) read(through int64, offset string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.through = max(d.through, through)
	d.pages = append(d.pages, pageEnd{offset, d.popped + len(d.pieces)})
	d.settle()
}

// settle drops the ends of pages that have become safe. d.mu is held.
func (d *delivery) settle() {
	for len(d.pages) > 0 && d.pages[0].batches <= d.popped {
		d.offset = d.pages[0].offset
		d.pages = d.pages[1:]
	}
}

// restart forgets how far the walk had come: it began again in another order.
func (d *delivery) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.through, d.pages, d.offset = 0, nil, ""
}

// safeOffset is the token after the last page of which every entry has an outcome.
func (d *delivery) safeOffset() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settle()
	return d.offset
}

// safe is the second up to which everything that was read has an outcome: just
// before the first entry that has none. 0 where no order is proven.
func (d *delivery) safe() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.through
	for _, pc := range d.pieces {
		if !pc.done {
			s = min(s, pc.first-1)
		}
	}
	return s
}

func (d *delivery) count(f func(*Summary)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.sum)
}

// deliver puts a batch until each of its entries has an outcome. What has none
// after the given time is parked, if the destination accepts anything at all.
func (d *delivery) deliver(ctx, work context.Context, batch []audit.Entry, patience time.Duration, since time.Time) error {
	var (
		began   = time.Now()
		backoff = 100 * time.Millisecond
		rest    = batch
	)
	for try := 1; ; try++ {
		unresolved, why, answered, err := d.round(ctx, work, rest, try)
		var stop *stopError
		if errors.As(err, &stop) {
			return stop.err
		}
		if len(unresolved) == 0 {
			return nil
		}
		if err != nil && !answered {
			d.count(func(s *Summary) { s.Repeated += len(unresolved) })
		}
		if time.Since(began) > patience {
			return d.giveUp(ctx, work, unresolved, why, err, patience, began, since, try)
		}
		d.p.log.Debug("putting again", "entries", len(unresolved), "try", try, "code", why[0].Code, "err", err)
		if err := d.p.wait(ctx, jitter(backoff)); err != nil {
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
func (d *delivery) round(ctx, work context.Context, entries []audit.Entry, try int) (unresolved []audit.Entry, why []audit.Verdict, answered bool, err error) {
	if err := d.puts.Acquire(ctx, 1); err != nil {
		return nil, nil, false, &stopError{context.Cause(ctx)}
	}
	defer d.puts.Release(1)
	if err := d.mayPut(ctx); err != nil {
		return nil, nil, false, &stopError{err}
	}
	if try > 1 {
		d.count(func(s *Summary) { s.Retries++ })
	}
	verdicts, answered, err := d.attempt(work, entries)
	records := make([]audit.Record, 0, len(entries))
	accepted := entries[:0:0]
	dead := 0
	for i, v := range verdicts {
		e := &entries[i]
		switch v.Status {
		case audit.Accepted:
			records = append(records, d.record(e, audit.Delivered, nil))
			if len(accepted) == i { // as a rule all of them are: no need for a copy
				accepted = entries[: i+1 : i+1]
			} else {
				accepted = append(accepted, *e)
			}
		case audit.Refused:
			dead++
			records = append(records, d.record(e, audit.Dead, letter(e, audit.Dead, v, try)))
			d.p.log.Error("entry refused for good, kept as a dead letter", "id", e.ID, "code", v.Code, "reason", v.Reason)
		default:
			unresolved = append(unresolved, *e)
			why = append(why, v)
		}
	}
	if len(records) > 0 {
		if err := d.commit(work, records, accepted); err != nil {
			return nil, nil, answered, &stopError{err}
		}
		d.count(func(s *Summary) { s.Delivered += len(accepted); s.Dead += dead })
	}
	var settings *audit.SettingsError
	if errors.As(err, &settings) {
		return nil, nil, answered, &stopError{err}
	}
	return unresolved, why, answered, err
}

// attempt makes one put. answered tells whether the destination said anything at
// all of these entries.
func (d *delivery) attempt(work context.Context, entries []audit.Entry) (verdicts []audit.Verdict, answered bool, err error) {
	begin := time.Now()
	verdicts, err = d.p.opts.Sink.Put(work, entries)
	d.p.opts.Observer.stage("put", begin)
	if len(verdicts) != len(entries) {
		return make([]audit.Verdict, len(entries)), false, fmt.Errorf("destination gave %d verdicts for %d entries", len(verdicts), len(entries))
	}
	for _, v := range verdicts {
		answered = answered || v.Status != audit.Unresolved || v.Code != ""
		if v.Status == audit.Accepted {
			d.mu.Lock()
			d.accepted = time.Now()
			d.mu.Unlock()
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
func (d *delivery) giveUp(ctx, work context.Context, entries []audit.Entry, why []audit.Verdict, err error, patience time.Duration, began, since time.Time, tries int) error {
	if err != nil {
		switch {
		case !since.IsZero():
		case len(entries) == 1:
			// There is nothing to compare it with. To park it in an outage does no
			// harm: what is parked becomes a dead letter only if others were accepted.
			since = began
		default:
			// What was accepted long ago says nothing of an outage that came later.
			since = time.Now().Add(-patience / 2)
			if !d.acceptedSince(since) {
				// Every call failed. Either the destination is down, or it chokes on one
				// of these: some of them by themselves will tell.
				var stop error
				if entries, why, stop = d.probe(ctx, work, entries, why, tries); stop != nil {
					return stop
				}
			}
		}
		if !d.acceptedSince(since) {
			return fmt.Errorf("%w for %s: %w", ErrUnavailable, patience.Round(time.Millisecond), err)
		}
		if len(entries) > 1 {
			half := len(entries) / 2
			if err := d.deliver(ctx, work, entries[:half], patience/4, since); err != nil {
				return err
			}
			return d.deliver(ctx, work, entries[half:], patience/4, since)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	records := make([]audit.Record, len(entries))
	for i := range entries {
		e := &entries[i]
		records[i] = d.record(e, audit.Parked, letter(e, audit.Parked, why[i], tries))
		d.p.log.Warn("entry parked after its retries", "id", e.ID, "code", why[i].Code, "reason", why[i].Reason)
	}
	if err := d.commit(work, records, nil); err != nil {
		return err
	}
	d.count(func(s *Summary) { s.Parked += len(entries) })
	return nil
}

func (d *delivery) acceptedSince(t time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.accepted.IsZero() && !d.accepted.Before(t)
}

// probe puts some of several entries by themselves: the first, the last, and one
// between, another one each time. It returns those that still have no outcome.
func (d *delivery) probe(ctx, work context.Context, entries []audit.Entry, why []audit.Verdict, tries int) ([]audit.Entry, []audit.Verdict, error) {
	picked := map[int]bool{0: true, len(entries) - 1: true, rand.N(len(entries)): true}
	var rest []audit.Entry
	var reasons []audit.Verdict
	for i := range entries {
		if picked[i] {
			left, _, _, err := d.round(ctx, work, entries[i:i+1:i+1], tries)
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
