package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// giveUp decides on a batch whose calls have failed for longer than its patience, or
// since the gate closed. closed is how long ago that was, 0 while it is open. giveUp
// returns the batch if it is to be tried further, and nil once nothing is left to do.
//
//	the last call's failure   others were accepted recently  then
//	not due to entries        yes                            defer the batch
//	may be due to entries     yes, and one entry is left     defer it
//	may be due to entries     yes                            halve the batch, to find the entry at fault
//	may be due to entries     no                             try a few entries alone; if one is accepted, halve the rest
//	any                       no, for --retry-for            end the pass: the destination is down, and no entry is at fault
//	any                       no, and the gate is open       let this batch close the gate, and go on
func (w *Workers) giveUp(ctx context.Context, b *batch, failure error, closed time.Duration) (*batch, error) {
	retryFor := w.d.opts.RetryFor
	recently := w.d.gate.acceptedSince(time.Now().Add(-retryFor / 2))
	switch {
	case audit.IsDestinationError(failure): // smaller batches would fare no better
		if recently {
			return nil, w.deferEntries(b)
		}
	case len(b.entries) == 1:
		// There is nothing to compare a lone entry with but what was accepted since it
		// was first put. To defer it in an outage does no harm: a deferred entry becomes
		// a dead letter only if others are accepted.
		if w.d.gate.acceptedSince(b.comparable) && !w.d.gate.crowded() {
			return nil, w.deferEntries(b)
		}
	case recently:
		return nil, w.bisect(ctx, b)
	default:
		// Either the destination is down, or one of these entries makes it fail.
		begin := time.Now()
		rest, err := w.trySome(ctx, b)
		if err != nil || rest == nil {
			return nil, err
		}
		if w.d.gate.acceptedSince(begin) {
			return nil, w.bisect(ctx, rest)
		}
		b = rest
	}
	if closed >= retryFor {
		return nil, fmt.Errorf("%w for %s: %w", ErrUnavailable, retryFor.Round(time.Millisecond), failure)
	}
	// The gate is open, but nothing has passed it for long: let this batch close it.
	b.suspect, b.patienceStart = false, time.Now()
	return b, nil
}

// bisect puts the halves of a batch that makes the destination fail, and goes on with
// the half that fails.
func (w *Workers) bisect(ctx context.Context, b *batch) error {
	begin, half := time.Now(), len(b.entries)/2
	var failed []*batch
	alive := false // the destination has accepted something since begin
	for _, part := range []*batch{b.part(0, half), b.part(half, len(b.entries))} {
		part.suspect, part.comparable = true, begin
		part.patienceStart, part.patience = begin, w.d.opts.RetryFor/4
		r, err := w.round(ctx, part)
		switch {
		case err != nil:
			return err
		case r.left == nil:
		case r.failure == nil:
			if err := w.retry(r.left); err != nil {
				return err
			}
		default:
			failed = append(failed, r.left)
			if audit.IsDestinationError(r.failure) {
				begin = time.Now() // this failure says nothing about the entries
			}
		}
		alive = w.d.gate.acceptedSince(begin)
	}
	for _, part := range failed {
		var err error
		if alive && len(part.entries) > 1 {
			err = w.bisect(ctx, part)
		} else {
			if len(part.entries) == 1 {
				part.comparable = b.comparable
			}
			part.patienceStart = time.Now()
			err = w.deliver(ctx, part)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// trySome puts some entries of a batch by themselves: the first, the last, and one
// between, another one each time. It returns those that still have no outcome, nil
// if all have one.
func (w *Workers) trySome(ctx context.Context, b *batch) (*batch, error) {
	picked := map[int]bool{0: true, len(b.entries) - 1: true, rand.N(len(b.entries)): true}
	rest := *b
	rest.entries, rest.past = nil, nil
	for i := range b.entries {
		one := b.part(i, i+1)
		if picked[i] {
			r, err := w.round(ctx, one)
			if err != nil {
				return nil, err
			}
			if one = r.left; one == nil {
				continue
			}
		}
		rest.entries, rest.past = append(rest.entries, one.entries...), append(rest.past, one.past...)
	}
	if len(rest.entries) == 0 {
		return nil, nil
	}
	return &rest, nil
}

// deferEntries defers the entries of a batch.
func (w *Workers) deferEntries(b *batch) error {
	records := make([]audit.Record, len(b.entries))
	for i := range b.entries {
		records[i] = w.d.newRecord(&b.entries[i], audit.Deferred, undelivered(&b.entries[i], audit.Deferred, b.of(i)))
	}
	first := records[0].Undelivered
	w.d.log.Warn("entries deferred after their retries", "entries", len(records), "id", first.Entry.ID, "code", first.Code, "reason", first.Reason)
	if err := w.d.commit(w.work, records, nil); err != nil {
		return err
	}
	w.resolve(b, nil)
	return nil
}

// jitter spreads a wait over the half below and above it.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d)
}
