package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// parkedEvery is how often tails try parked entries. A reconcile always does.
const parkedEvery = time.Minute

// parkedFirst gives every parked entry one more try, before anything else. One
// that has been parked for too long becomes a dead letter.
func (ps *pass) parkedFirst(ctx, work context.Context) error {
	p := ps.p
	if ps.req.Kind == Tail && time.Since(p.lastPark) < parkedEvery {
		return nil
	}
	_, parked, err := p.opts.Book.LetterCounts(ctx)
	if err != nil {
		return fmt.Errorf("counting parked entries: %w", err)
	}
	p.lastPark = time.Now()
	if parked == 0 {
		return nil
	}
	var letters []audit.Letter
	ps.parked.heard = time.Now()
	size, seen := 0, 0
	for l, err := range p.opts.Book.Letters(ctx) {
		if err != nil {
			return fmt.Errorf("reading parked entries: %w", err)
		}
		if l.Outcome != audit.Parked {
			continue
		}
		letters = append(letters, l)
		size += l.Entry.Size()
		if len(letters) >= p.opts.BatchEntries || size >= p.opts.BatchBytes {
			if err := ps.unpark(ctx, work, letters); err != nil {
				return err
			}
			letters, size = nil, 0
		}
		if seen++; seen == parked {
			break // the others are dead
		}
	}
	return ps.unpark(ctx, work, letters)
}

// parkedTries is what a pass knows of its tries of parked entries.
type parkedTries struct {
	failed  int       // calls in a row of which nothing came
	heard   time.Time // when one did not fail, or the first was made
	overdue []audit.Letter
	bytes   int // of overdue
}

// maxFailed is after how many failed calls in a row a pass gives up on parked
// entries: twice as many as it takes to find a bad one in a batch.
const maxFailed = 16

// unpark tries a batch of parked entries once, and its halves if the call failed.
func (ps *pass) unpark(ctx, work context.Context, letters []audit.Letter) error {
	d, tries := ps.del, &ps.parked
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
	var unresolved []audit.Letter
	for i, v := range verdicts {
		e, l := &entries[i], letters[i]
		switch {
		case v.Status == audit.Accepted:
			records = append(records, d.record(e, audit.Delivered, nil))
			accepted = append(accepted, *e)
		case v.Status == audit.Refused:
			l.Tries++
			l.Code, l.Reason = v.Code, v.Reason
			records = append(records, ps.condemn(l))
		case err == nil && ps.isOverdue(&l):
			l.Tries++
			records = append(records, ps.condemn(overdue(l)))
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
	var settings *audit.SettingsError
	switch {
	case errors.As(err, &settings):
		return err
	case len(unresolved) == 1:
		ps.doubt(unresolved[0])
	case len(unresolved) > 1:
		// One of them may be what the destination chokes on. Which half is first is
		// left to chance, so that several bad ones do not hide the rest for ever.
		half := len(unresolved) / 2
		a, b := unresolved[:half], unresolved[half:]
		if rand.N(2) == 0 {
			a, b = b, a
		}
		if err := ps.unpark(ctx, work, a); err != nil {
			return err
		}
		return ps.unpark(ctx, work, b)
	}
	return nil
}

func (ps *pass) isOverdue(l *audit.Letter) bool {
	return time.Since(l.Since) >= ps.p.opts.DeadAfter
}

// doubt keeps in mind a parked entry that is overdue and whose call failed. That
// may be due to the entry or to the destination: the pass will tell.
func (ps *pass) doubt(l audit.Letter) {
	tries, size := &ps.parked, l.Entry.Size()
	if !ps.isOverdue(&l) || len(tries.overdue) > 0 && tries.bytes+size > ps.p.opts.BatchBytes {
		return
	}
	l.Tries++
	tries.overdue, tries.bytes = append(tries.overdue, l), tries.bytes+size
}

// judge makes dead letters of the overdue entries whose call failed, if the
// destination accepted other entries meanwhile.
func (ps *pass) judge(work context.Context) error {
	list := ps.parked.overdue
	ps.parked.overdue = nil
	if len(list) == 0 || !ps.del.acceptedSince(time.Time{}) {
		return nil
	}
	records := make([]audit.Record, len(list))
	for i, l := range list {
		records[i] = ps.condemn(overdue(l))
	}
	if err := ps.del.commit(work, records, nil); err != nil {
		return err
	}
	ps.del.count(func(s *Summary) { s.New += len(list); s.Dead += len(list) })
	return nil
}

func overdue(l audit.Letter) audit.Letter {
	l.Reason = "parked for too long: " + l.Reason
	return l
}

// condemn is the record that makes a parked entry a dead letter.
func (ps *pass) condemn(l audit.Letter) audit.Record {
	l.Outcome = audit.Dead
	ps.p.log.Error("parked entry is now a dead letter", "id", l.Entry.ID, "code", l.Code, "reason", l.Reason)
	return ps.del.record(&l.Entry, audit.Dead, &l)
}
