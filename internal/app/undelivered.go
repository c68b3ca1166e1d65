package app

import (
	"context"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/lease"
)

// Selection chooses undelivered entries: those that are named, or if none is, all that
// have the code and the age.
type Selection struct {
	IDs       []string
	Code      string        // empty: any
	OlderThan time.Duration // 0: any age
}

// Unreadable is the code of an undelivered entry of which the ledger's copy cannot be decoded.
const Unreadable = "unreadable"

// Retry puts undelivered entries again, and returns how many were delivered. It calls left
// with each of the others. It holds the lease, as a pass would put deferred entries at the
// same time.
func (a *App) Retry(ctx context.Context, s *Selection, left func(*audit.Undelivered)) (delivered int, err error) {
	_, err = a.Lease(nil).Do(ctx, true, a.Settings.LeaseWait, func(ctx context.Context, _ *lease.Held) error {
		return a.forSelected(ctx, s, func(undelivered []audit.Undelivered) error {
			others, err := a.putAgain(ctx, undelivered)
			delivered += len(undelivered) - len(others)
			for i := range others {
				left(&others[i])
			}
			return err
		}, func(u audit.Undelivered) error {
			left(&u)
			return nil
		})
	})
	return delivered, Explain(err)
}

// Drop gives undelivered entries up, and returns how many. The log says which, and the
// reason.
func (a *App) Drop(ctx context.Context, s *Selection, reason string) (dropped int, err error) {
	drop := func(undelivered []audit.Undelivered) error {
		records := make([]audit.Record, len(undelivered))
		for i := range undelivered {
			records[i] = a.newRecord(undelivered[i], audit.Dropped)
		}
		if err := a.Store.Record(ctx, records); err != nil {
			return err
		}
		for i := range undelivered {
			a.Log.Warn("dead letter dropped", "id", undelivered[i].Entry.ID, "code", undelivered[i].Code, "reason", reason)
		}
		dropped += len(records)
		return nil
	}
	err = a.forSelected(ctx, s, drop, func(u audit.Undelivered) error { return drop([]audit.Undelivered{u}) })
	return dropped, err
}

// forSelected calls f with the undelivered entries that are selected, a bounded number
// at a time, and unreadable with each of which the ledger's copy cannot be decoded.
func (a *App) forSelected(ctx context.Context, s *Selection, f func([]audit.Undelivered) error, unreadable func(audit.Undelivered) error) error {
	for _, id := range s.IDs {
		u, found, err := a.Store.UndeliveredEntry(ctx, id)
		switch {
		case audit.IsUnreadable(err):
			err = unreadable(Explained(u, err))
		case err == nil && !found:
			err = NoUndelivered(id)
		case err == nil:
			err = f([]audit.Undelivered{u})
		}
		if err != nil {
			return err
		}
	}
	if len(s.IDs) > 0 {
		return nil
	}
	const atOnce, bytesAtOnce = 100, 1 << 20
	var batch []audit.Undelivered
	size := 0
	for u, err := range a.Store.UndeliveredEntries(ctx) {
		broken := audit.IsUnreadable(err)
		if err != nil && !broken {
			return err
		}
		if u = Explained(u, err); s.Code != "" && u.Code != s.Code || time.Since(u.Since) < s.OlderThan {
			continue
		}
		if broken {
			if err := unreadable(u); err != nil {
				return err
			}
			continue
		}
		batch = append(batch, u)
		if size += u.Entry.Size(); len(batch) >= atOnce || size >= bytesAtOnce {
			if err := f(batch); err != nil {
				return err
			}
			batch, size = nil, 0
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return f(batch)
}

// Explained returns an undelivered entry with a code and a reason of its own if the error with
// which the ledger yielded it says that its copy cannot be decoded.
func Explained(u audit.Undelivered, err error) audit.Undelivered {
	if audit.IsUnreadable(err) {
		u.Code, u.Reason = Unreadable, err.Error()
	}
	return u
}

// NoUndelivered is the error for an id that no undelivered entry has.
func NoUndelivered(id string) error {
	return fmt.Errorf("no dead letter and nothing deferred has the id %q: relay dead list shows what there is", id)
}

// recordWithin bounds recording what has been put.
const recordWithin = 10 * time.Second

// newRecord returns the record that gives an undelivered entry an outcome.
func (a *App) newRecord(u audit.Undelivered, o audit.Outcome) audit.Record {
	retention := a.Settings.RecordTTL
	if u.Entry.TTL >= 0 {
		retention = max(retention, time.Duration(u.Entry.TTL)*time.Second)
	}
	return audit.Record{ID: u.Entry.ID, Timestamp: u.Entry.Timestamp, Retention: retention, Outcome: o}
}

// putAgain puts undelivered entries once and records the outcome. It returns those that
// were not accepted, each with the destination's last code and reason.
func (a *App) putAgain(ctx context.Context, undelivered []audit.Undelivered) (left []audit.Undelivered, err error) {
	entries := make([]audit.Entry, len(undelivered))
	for i := range undelivered {
		entries[i] = undelivered[i].Entry
	}
	verdicts, putErr := a.destination.Put(ctx, entries)
	var records []audit.Record
	accepted := 0
	for i, v := range verdicts {
		u := undelivered[i]
		switch v.Status {
		case audit.Accepted:
			accepted++
			records = append(records, a.newRecord(u, audit.Delivered))
			continue
		case audit.Rejected:
			u.Outcome, u.Code, u.Reason = audit.Dead, v.Code, v.Reason
			u.Tries++
			r := a.newRecord(u, audit.Dead)
			r.Undelivered = &u
			records = append(records, r)
		case audit.Retryable: // its record stays as it is
			u.Code, u.Reason = v.Code, v.Reason
		}
		left = append(left, u)
	}
	if len(records) == 0 {
		return left, putErr
	}
	// What was accepted is recorded, even if the command is told to stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordWithin)
	defer cancel()
	if err := a.Store.Record(ctx, records); err != nil {
		return left, fmt.Errorf("%d entries were accepted but not recorded (they may be repeated): %w", accepted, err)
	}
	return left, putErr
}
