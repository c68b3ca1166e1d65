package delivery

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// maxFailed is the number of failed calls in a row after which a pass gives up on
// deferred entries: twice what it takes to find a bad entry in a batch.
const maxFailed = 16

// deadAfter is how long an entry stays deferred before it becomes a dead letter.
const deadAfter = 24 * time.Hour

// deferredTries is the state of the workers' tries of deferred entries.
type deferredTries struct {
	failed      int       // calls in a row that failed and gave no entry an outcome
	lastSuccess time.Time // of a call; before the first one, when PutDeferred began
	overdue     batch     // entries deferred for too long, whose call failed
	bytes       int       // of those
}

// PutDeferred puts the deferred ones among the undelivered entries once more; there are
// n of them. One that has been deferred for too long becomes a dead letter. PutDeferred
// must be called before [Workers.Add].
func (w *Workers) PutDeferred(ctx context.Context, undelivered iter.Seq2[audit.Undelivered, error], n int) error {
	o := &w.d.opts
	w.deferred.lastSuccess = time.Now()
	b, size, seen := deferredBatch(), 0, 0
	for u, err := range undelivered {
		if err != nil && !audit.IsUnreadable(err) {
			return fmt.Errorf("reading deferred entries: %w", err)
		}
		if u.Outcome != audit.Deferred {
			continue
		}
		if err == nil {
			b.entries, b.past = append(b.entries, u.Entry), append(b.past, pastPuts{
				puts: u.Tries, last: audit.Verdict{Code: u.Code, Reason: u.Reason}, deferred: u.Since,
			})
			size += u.Entry.Size()
		} else {
			w.d.log.Warn("deferred entry cannot be put again, the ledger's copy is broken", "id", u.Entry.ID, "err", err, "hint", audit.Hint(err))
			w.d.count(func(s *Counts) { s.StillDeferred, s.Reason = s.StillDeferred+1, err.Error() })
		}
		if len(b.entries) >= o.BatchEntries || size >= o.BatchBytes {
			if err := w.putDeferred(ctx, b); err != nil {
				return err
			}
			b, size = deferredBatch(), 0
		}
		if seen++; seen == n {
			break // the others are dead
		}
	}
	return w.putDeferred(ctx, b)
}

// deferredBatch returns an empty batch for deferred entries. Its failures do not
// close the gate: it may contain the entry that makes the destination fail.
func deferredBatch() *batch {
	b := newBatch(nil, nil, 0)
	b.suspect = true
	return b
}

// putDeferred puts a batch of deferred entries once, and its halves if the call failed.
func (w *Workers) putDeferred(ctx context.Context, b *batch) error {
	d, tries := w.d, &w.deferred
	if len(b.entries) == 0 {
		return nil
	}
	if tries.failed >= maxFailed || tries.failed > 0 && time.Since(tries.lastSuccess) > w.d.opts.RetryFor {
		d.count(func(s *Counts) { s.StillDeferred += len(b.entries) })
		return nil
	}
	r, err := w.round(ctx, b)
	if err != nil {
		return err
	}
	left := 0
	if r.left != nil {
		left = len(r.left.entries)
	}
	decided := len(b.entries) - left
	d.count(func(s *Counts) { s.New += decided })
	if r.failure == nil || decided > 0 {
		tries.failed, tries.lastSuccess = 0, time.Now()
	} else {
		tries.failed++
	}
	if r.failure == nil || left == 1 {
		d.count(func(s *Counts) { s.StillDeferred += left })
	}
	switch {
	case r.failure == nil:
	case left == 1:
		w.noteOverdue(r.left)
	case left > 1:
		// One of them may make the destination fail. Which half is first is left to
		// chance, so that several bad ones do not always hide the rest.
		first, second := r.left.part(0, left/2), r.left.part(left/2, left)
		if rand.N(2) == 0 {
			first, second = second, first
		}
		if err := w.putDeferred(ctx, first); err != nil {
			return err
		}
		return w.putDeferred(ctx, second)
	}
	return nil
}

// noteOverdue notes a deferred entry whose call failed, if it is overdue. That may be
// due to the entry or to the destination: the rest of the pass shows which.
func (w *Workers) noteOverdue(one *batch) {
	tries, size := &w.deferred, one.entries[0].Size()
	if time.Since(one.past[0].deferred) < deadAfter || len(tries.overdue.entries) > 0 && tries.bytes+size > w.d.opts.BatchBytes {
		return
	}
	tries.overdue.entries = append(tries.overdue.entries, one.entries...)
	tries.overdue.past = append(tries.overdue.past, one.past...)
	tries.bytes += size
}

// RejectOverdue makes dead letters of those deferred entries that are overdue and for
// which the call of [Workers.PutDeferred] failed, if the destination has accepted other
// entries in this pass. It is called once the pass has delivered everything else.
func (w *Workers) RejectOverdue() error {
	b := w.deferred.overdue
	w.deferred.overdue = batch{}
	if len(b.entries) == 0 || !w.d.gate.acceptedSince(time.Time{}) {
		return nil
	}
	var made decision
	for i := range b.entries {
		made.addDeadLetter(w.d, &b.entries[i], overdue(&b.entries[i], b.past[i]))
	}
	w.d.logDead(made.dead)
	w.d.count(func(s *Counts) { s.New += len(b.entries); s.StillDeferred -= len(b.entries) })
	return w.d.commit(w.work, made.records, nil)
}
