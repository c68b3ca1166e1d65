package delivery

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	// maxRefused is the number of records refused in a row after which a ledger that has
	// stored none counts as refusing all.
	maxRefused = 3
	// largeRecord is the size of an undelivered entry from which a ledger may refuse it
	// by cutting the connection, as servers do with requests that are too large.
	largeRecord = 512 << 10
)

// commit records what was decided. Once entries are accepted, it is the recording that is
// retried, not the put. While the ledger does not answer, no new put is started.
//
// A refusal that waiting cannot change is not waited for: what the ledger can store is
// recorded, if necessary without its payload. What it cannot store fails the pass, and
// the process's next pass records it before it puts anything.
func (d *Delivery) commit(work context.Context, records []audit.Record, accepted []audit.Entry) error {
	var refused []audit.Record
	err := d.store(work, records)
	switch {
	case audit.NeedsPerson(err):
		s := salvage{Delivery: d, cause: err}
		s.halve(work, records)
		if refused = s.refused; len(refused) == 0 {
			err = nil
		} else {
			err = s.cause
		}
	case err != nil:
		refused = records
	}
	if !audit.LedgerForgot(err) {
		d.opts.Unrecorded.add(refused)
	}
	missing := map[string]bool{}
	for i := range refused {
		missing[refused[i].ID] = true
	}
	d.mu.Lock()
	for i := range records {
		if !missing[records[i].ID] {
			delete(d.flight, records[i].ID)
			d.counts.note(&records[i])
		}
	}
	d.mu.Unlock()
	if len(missing) > 0 {
		accepted = slices.DeleteFunc(slices.Clone(accepted), func(e audit.Entry) bool { return missing[e.ID] })
	}
	if f := d.opts.Observer.Delivered; f != nil && len(accepted) > 0 {
		f(accepted)
	}
	if err != nil {
		return fmt.Errorf("recording %d of %d entries that have an outcome (they may be repeated): %w", len(refused), len(records), err)
	}
	return nil
}

// store records what was decided, and waits for a ledger that does not answer.
func (d *Delivery) store(work context.Context, records []audit.Record) error {
	var back chan struct{} // not nil if others wait for this call
	defer func() {
		if back != nil {
			d.mu.Lock()
			d.ledgerBack = nil
			d.mu.Unlock()
			close(back)
		}
	}()
	first, cut := time.Now(), 0
	for backoff := 50 * time.Millisecond; ; backoff = min(backoff*2, 2*time.Second) {
		begin := time.Now()
		err := d.opts.Ledger.Record(work, records)
		d.opts.Observer.stage("record", begin)
		if err == nil || audit.LedgerForgot(err) || audit.NeedsPerson(err) || work.Err() != nil {
			return err
		}
		if time.Since(first) > d.opts.RecordFor {
			d.mu.Lock()
			d.ledgerGaveUp = err
			d.mu.Unlock()
			return err
		}
		if id := largeID(records); id != "" {
			// If it answers a look-up, it may have refused the size.
			if _, lookupErr := d.opts.Ledger.Lookup(work, []audit.Entry{{ID: id}}); lookupErr == nil {
				cut++
			}
			if cut == maxRefused {
				return audit.NewSettingsError(err, "let the ledger's server take larger requests (proto-max-bulk-len)")
			}
		}
		if back == nil {
			d.mu.Lock()
			if d.ledgerBack == nil {
				back = make(chan struct{})
				d.ledgerBack = back
			}
			d.mu.Unlock()
			if back != nil {
				d.log.Warn("ledger does not record, waiting for it", "entries", len(records), "err", err)
			}
		}
		if sleep(work, jitter(backoff), nil) != nil {
			return err
		}
	}
}

// largeID returns the id of an undelivered entry among records that is so large that
// the ledger may refuse it, or the empty string.
func largeID(records []audit.Record) string {
	for _, r := range records {
		if r.Undelivered != nil && r.Undelivered.Entry.Size() >= largeRecord {
			return r.ID
		}
	}
	return ""
}

// salvage finds out which of several records the ledger refuses.
type salvage struct {
	*Delivery
	cause   error // of the last refusal
	refused []audit.Record
	stored  int
}

// halve records the halves of records that were refused as a whole.
func (s *salvage) halve(work context.Context, records []audit.Record) {
	if s.stored == 0 && len(s.refused) >= maxRefused {
		s.refused = append(s.refused, records...)
		return
	}
	if len(records) == 1 {
		s.strip(work, records[0])
		return
	}
	half := len(records) / 2
	for _, part := range [][]audit.Record{records[:half], records[half:]} {
		err := s.store(work, part)
		switch {
		case err == nil:
			s.stored += len(part)
		case audit.NeedsPerson(err):
			s.cause = err
			s.halve(work, part)
		default:
			s.cause = err
			s.refused = append(s.refused, part...)
		}
	}
}

// strip records an undelivered entry without its payload, if it has one: the ledger
// does not store it whole.
func (s *salvage) strip(work context.Context, r audit.Record) {
	if r.Undelivered == nil || r.Undelivered.Entry.Payload == "" {
		s.refused = append(s.refused, r)
		return
	}
	u := *r.Undelivered
	u.Reason = fmt.Sprintf("stored without its payload of %d bytes, which the ledger refused; %s", len(u.Entry.Payload), u.Reason)
	u.Entry.Payload = ""
	u.Entry.RemovedFromPayload = cmp.Or(u.Entry.RemovedFromPayload, "payload") // also for the event, if it is put again
	bare := r
	bare.Undelivered = &u
	if err := s.store(work, []audit.Record{bare}); err != nil {
		s.cause = err
		s.refused = append(s.refused, r)
		return
	}
	s.stored++
	s.log.Warn("undelivered entry stored without its payload, the ledger refused it whole", "id", r.ID, "err", s.cause, "hint", audit.Hint(s.cause))
}

// Unrecorded holds records that the ledger did not take, from one pass of a process to
// the next. The zero value is ready to use. It is safe for concurrent use.
type Unrecorded struct {
	mu   sync.Mutex
	list []audit.Record
}

func (u *Unrecorded) add(records []audit.Record) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list = append(u.list, records...)
}

func (u *Unrecorded) take() []audit.Record {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := u.list
	u.list = nil
	return list
}

// RecordFirst records what earlier passes of this process could not record, so
// that none of it is put again.
func (w *Workers) RecordFirst() error {
	list := w.d.opts.Unrecorded.take()
	if len(list) == 0 {
		return nil
	}
	w.d.count(func(s *Counts) { s.New += len(list) })
	return w.d.commit(w.work, list, nil)
}

// mayPut waits while the ledger does not answer. It returns an error if nothing may be put
// any more: the lease is lost, or the ledger was waited for in vain, so that what is put
// now could not be recorded either.
func (d *Delivery) mayPut(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := d.opts.Valid(); err != nil {
			return err
		}
		d.mu.Lock()
		back, gaveUp := d.ledgerBack, d.ledgerGaveUp
		d.mu.Unlock()
		if gaveUp != nil {
			return fmt.Errorf("nothing is put before the ledger answers: %w", gaveUp)
		}
		if back == nil {
			return nil
		}
		select {
		case <-back:
		case <-ctx.Done():
		}
	}
}
