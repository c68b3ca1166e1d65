package app

import (
	"context"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

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

// PutAgain puts undelivered entries once and records the outcome. It returns those that
// were not accepted, each with the destination's last code and reason.
func (a *App) PutAgain(ctx context.Context, undelivered []audit.Undelivered) (left []audit.Undelivered, err error) {
	entries := make([]audit.Entry, len(undelivered))
	for i := range undelivered {
		entries[i] = undelivered[i].Entry
	}
	verdicts, putErr := a.Destination.Put(ctx, entries)
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
