package pipeline

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// deferredEvery is how often tails try deferred entries. A reconcile always does.
const deferredEvery = time.Minute

// maxFailed is after how many failed calls in a row a pass gives up on deferred
// entries: twice as many as it takes to find a bad one in a batch.
const maxFailed = 16

// deferredTries is what a pass knows of its tries of deferred entries.
type deferredTries struct {
	failed      int       // calls in a row of which nothing came
	lastSuccess time.Time // when one did not fail, or the first was made
	suspects    batch     // overdue entries whose call failed
	bytes       int       // of suspects
}

// deferredFirst puts every deferred entry once more, before anything else. One that
// has been deferred for too long becomes a dead letter.
func (ps *pass) deferredFirst(ctx, work context.Context) error {
	p := ps.p
	if err := ps.del.recordFirst(work); err != nil {
		return err
	}
	p.mu.Lock()
	since := time.Since(p.lastDeferred)
	p.mu.Unlock()
	if ps.req.Kind == Tail && since < deferredEvery {
		return nil
	}
	_, deferred, err := p.opts.Undelivered.UndeliveredCounts(ctx)
	if err != nil {
		return fmt.Errorf("counting deferred entries: %w", err)
	}
	p.mu.Lock()
	p.lastDeferred = time.Now()
	p.mu.Unlock()
	if deferred == 0 {
		return nil
	}
	ps.deferred.lastSuccess = time.Now()
	b, size, seen := ps.deferredBatch(), 0, 0
	for u, err := range p.opts.Undelivered.UndeliveredEntries(ctx) {
		if err != nil {
			return fmt.Errorf("reading deferred entries: %w", err)
		}
		if u.Outcome != audit.Deferred {
			continue
		}
		b.entries, b.past = append(b.entries, u.Entry), append(b.past, history{
			since: u.Since, puts: u.Tries, last: audit.Verdict{Code: u.Code, Reason: u.Reason}, deferred: true,
		})
		size += u.Entry.Size()
		if len(b.entries) >= p.opts.BatchEntries || size >= p.opts.BatchBytes {
			if err := ps.retryDeferred(ctx, work, b); err != nil {
				return err
			}
			b, size = ps.deferredBatch(), 0
		}
		if seen++; seen == deferred {
			break // the others are dead
		}
	}
	return ps.retryDeferred(ctx, work, b)
}

// deferredBatch returns an empty batch for deferred entries. Its failures do not
// close the gate: it may hold what the destination chokes on.
func (ps *pass) deferredBatch() *batch {
	b := newBatch(nil, nil, 0)
	b.suspect = true
	return b
}

// retryDeferred tries a batch of deferred entries once, and its halves if the call failed.
func (ps *pass) retryDeferred(ctx, work context.Context, b *batch) error {
	d, tries := ps.del, &ps.deferred
	if len(b.entries) == 0 {
		return nil
	}
	if tries.failed >= maxFailed || tries.failed > 0 && time.Since(tries.lastSuccess) > ps.p.opts.RetryFor {
		d.count(func(s *Summary) { s.StillDeferred += len(b.entries) })
		return nil
	}
	r, err := ps.batcher.workers.round(ctx, work, b)
	if err != nil {
		return err
	}
	left := 0
	if r.left != nil {
		left = len(r.left.entries)
	}
	decided := len(b.entries) - left
	d.count(func(s *Summary) { s.New += decided })
	if r.failure == nil || decided > 0 {
		tries.failed, tries.lastSuccess = 0, time.Now()
	} else {
		tries.failed++
	}
	if r.failure == nil || left == 1 {
		d.count(func(s *Summary) { s.StillDeferred += left })
	}
	switch {
	case r.failure == nil:
	case left == 1:
		ps.suspect(r.left)
	case left > 1:
		// One of them may be what the destination chokes on. Which half is first is
		// left to chance, so that several bad ones do not always hide the rest.
		first, second := r.left.part(0, left/2), r.left.part(left/2, left)
		if rand.N(2) == 0 {
			first, second = second, first
		}
		if err := ps.retryDeferred(ctx, work, first); err != nil {
			return err
		}
		return ps.retryDeferred(ctx, work, second)
	}
	return nil
}

// suspect keeps in mind a deferred entry that is overdue and whose call failed. That
// may be due to the entry or to the destination: the pass will tell.
func (ps *pass) suspect(one *batch) {
	tries, size := &ps.deferred, one.entries[0].Size()
	if time.Since(one.past[0].since) < ps.p.opts.DeadAfter || len(tries.suspects.entries) > 0 && tries.bytes+size > ps.p.opts.BatchBytes {
		return
	}
	tries.suspects.entries = append(tries.suspects.entries, one.entries...)
	tries.suspects.past = append(tries.suspects.past, one.past...)
	tries.bytes += size
}

// resolveSuspects makes dead letters of the suspects, if the destination accepted
// other entries meanwhile.
func (ps *pass) resolveSuspects(work context.Context) error {
	b := ps.deferred.suspects
	ps.deferred.suspects = batch{}
	if len(b.entries) == 0 || !ps.del.gate.acceptedSince(time.Time{}) {
		return nil
	}
	var made decision
	for i := range b.entries {
		made.die(ps.del, &b.entries[i], overdue(&b.entries[i], b.past[i]))
	}
	ps.del.logDead(made.dead)
	ps.del.count(func(s *Summary) { s.New += len(b.entries); s.StillDeferred -= len(b.entries) })
	return ps.del.commit(work, made.records, nil)
}
