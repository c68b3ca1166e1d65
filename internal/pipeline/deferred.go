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

// deferredFirst gives every deferred entry one more try, before anything else. One
// that has been deferred for too long becomes a dead letter.
func (ps *pass) deferredFirst(ctx, work context.Context) error {
	p := ps.p
	if ps.req.Kind == Tail && time.Since(p.lastDeferred) < deferredEvery {
		return nil
	}
	_, deferred, err := p.opts.Book.UndeliveredCounts(ctx)
	if err != nil {
		return fmt.Errorf("counting deferred entries: %w", err)
	}
	p.lastDeferred = time.Now()
	if deferred == 0 {
		return nil
	}
	var letters []audit.Undelivered
	ps.deferred.heard = time.Now()
	size, seen := 0, 0
	for l, err := range p.opts.Book.UndeliveredEntries(ctx) {
		if err != nil {
			return fmt.Errorf("reading deferred entries: %w", err)
		}
		if l.Outcome != audit.Deferred {
			continue
		}
		letters = append(letters, l)
		size += l.Entry.Size()
		if len(letters) >= p.opts.BatchEntries || size >= p.opts.BatchBytes {
			if err := ps.retryDeferred(ctx, work, letters); err != nil {
				return err
			}
			letters, size = nil, 0
		}
		if seen++; seen == deferred {
			break // the others are dead
		}
	}
	return ps.retryDeferred(ctx, work, letters)
}

// deferredTries is what a pass knows of its tries of deferred entries.
type deferredTries struct {
	failed  int       // calls in a row of which nothing came
	heard   time.Time // when one did not fail, or the first was made
	overdue []audit.Undelivered
	bytes   int // of overdue
}

// maxFailed is after how many failed calls in a row a pass gives up on deferred
// entries: twice as many as it takes to find a bad one in a batch.
const maxFailed = 16

// retryDeferred tries a batch of deferred entries once, and its halves if the call failed.
func (ps *pass) retryDeferred(ctx, work context.Context, letters []audit.Undelivered) error {
	d, tries := ps.del, &ps.deferred
	if len(letters) == 0 || tries.failed >= maxFailed || tries.failed > 0 && time.Since(tries.heard) > ps.p.opts.RetryFor {
		return nil
	}
	if err := d.mayPut(ctx); err != nil {
		return err
	}
	entries := make([]audit.Entry, len(letters))
	for i := range letters {
		entries[i] = letters[i].Entry
	}
	verdicts, _, err := ps.batcher.lane.attempt(work, entries)
	var records []audit.Record
	var accepted []audit.Entry
	var unresolved []audit.Undelivered
	for i, v := range verdicts {
		e, l := &entries[i], letters[i]
		switch {
		case v.Status == audit.Accepted:
			records = append(records, d.record(e, audit.Delivered, nil))
			accepted = append(accepted, *e)
		case v.Status == audit.Rejected:
			l.Tries++
			l.Code, l.Reason = v.Code, v.Reason
			records = append(records, ps.deadLetter(l))
		case err == nil && ps.isOverdue(&l):
			l.Tries++
			records = append(records, ps.deadLetter(overdue(l)))
		case err != nil:
			unresolved = append(unresolved, l)
		}
	}
	if len(records) > 0 {
		if err := d.commit(work, records, accepted); err != nil {
			return err
		}
	}
	d.count(func(s *Summary) {
		s.New += len(records)
		s.Delivered += len(accepted)
		s.Dead += len(records) - len(accepted)
	})
	if err == nil || len(records) > 0 {
		tries.failed, tries.heard = 0, time.Now()
	} else {
		tries.failed++
	}
	switch {
	case audit.NeedsPerson(err):
		return err
	case len(unresolved) == 1:
		ps.suspect(unresolved[0])
	case len(unresolved) > 1:
		// One of them may be what the destination chokes on. Which half is first is
		// left to chance, so that several bad ones do not hide the rest for ever.
		half := len(unresolved) / 2
		a, b := unresolved[:half], unresolved[half:]
		if rand.N(2) == 0 {
			a, b = b, a
		}
		if err := ps.retryDeferred(ctx, work, a); err != nil {
			return err
		}
		return ps.retryDeferred(ctx, work, b)
	}
	return nil
}

func (ps *pass) isOverdue(l *audit.Undelivered) bool {
	return time.Since(l.Since) >= ps.p.opts.DeadAfter
}

// suspect keeps in mind a deferred entry that is overdue and whose call failed. That
// may be due to the entry or to the destination: the pass will tell.
func (ps *pass) suspect(l audit.Undelivered) {
	tries, size := &ps.deferred, l.Entry.Size()
	if !ps.isOverdue(&l) || len(tries.overdue) > 0 && tries.bytes+size > ps.p.opts.BatchBytes {
		return
	}
	l.Tries++
	tries.overdue, tries.bytes = append(tries.overdue, l), tries.bytes+size
}

// judge makes dead letters of the overdue entries whose call failed, if the
// destination accepted other entries meanwhile.
func (ps *pass) judge(work context.Context) error {
	list := ps.deferred.overdue
	ps.deferred.overdue = nil
	if len(list) == 0 || !ps.del.acceptedSince(time.Time{}) {
		return nil
	}
	records := make([]audit.Record, len(list))
	for i, l := range list {
		records[i] = ps.deadLetter(overdue(l))
	}
	if err := ps.del.commit(work, records, nil); err != nil {
		return err
	}
	ps.del.count(func(s *Summary) { s.New += len(list); s.Dead += len(list) })
	return nil
}

func overdue(l audit.Undelivered) audit.Undelivered {
	l.Reason = "deferred for too long: " + l.Reason
	return l
}

// deadLetter is the record that makes a deferred entry a dead letter.
func (ps *pass) deadLetter(l audit.Undelivered) audit.Record {
	l.Outcome = audit.Dead
	ps.p.log.Error("deferred entry is now a dead letter", "id", l.Entry.ID, "code", l.Code, "reason", l.Reason)
	return ps.del.record(&l.Entry, audit.Dead, &l)
}
