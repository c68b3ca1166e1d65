package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// parkedEvery is how often tails try parked entries. A reconcile always does.
const parkedEvery = time.Minute

// parkedFirst gives every parked entry one more try, before anything else. One
// that has been parked for too long becomes a dead letter.
func (ps *pass) parkedFirst(ctx context.Context) error {
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
	size := 0
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
			if err := ps.unpark(letters); err != nil {
				return err
			}
			letters, size = nil, 0
		}
	}
	return ps.unpark(letters)
}

// unpark tries a batch of parked entries once.
func (ps *pass) unpark(letters []audit.Letter) error {
	if len(letters) == 0 {
		return nil
	}
	d := ps.del
	if err := d.mayPut(); err != nil {
		return err
	}
	entries := make([]audit.Entry, len(letters))
	for i := range letters {
		entries[i] = letters[i].Entry
	}
	verdicts, _, err := d.attempt(entries)
	var records []audit.Record
	var accepted []audit.Entry
	for i, v := range verdicts {
		e, l := &entries[i], letters[i]
		l.Tries++
		switch {
		case v.Status == audit.Accepted:
			records = append(records, d.record(e, audit.Delivered, nil))
			accepted = append(accepted, *e)
			continue
		case v.Status == audit.Refused:
			l.Code, l.Reason = v.Code, v.Reason
		case time.Since(l.Since) >= ps.p.opts.DeadAfter:
			l.Reason = "parked for too long: " + l.Reason
		default:
			continue
		}
		l.Outcome = audit.Dead
		records = append(records, d.record(e, audit.Dead, &l))
		ps.p.log.Error("parked entry is now a dead letter", "id", e.ID, "code", l.Code, "reason", l.Reason)
	}
	if len(records) > 0 {
		if err := d.commit(records, accepted); err != nil {
			return err
		}
	}
	d.count(func(s *Summary) {
		s.New += len(records)
		s.Delivered += len(accepted)
		s.Dead += len(records) - len(accepted)
	})
	var settings *audit.SettingsError
	if errors.As(err, &settings) {
		return err
	}
	return nil
}
