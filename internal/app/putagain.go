package app

import (
	"context"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// recordWithin bounds recording what has been put.
const recordWithin = 10 * time.Second

// Record returns the record that gives an undelivered entry an outcome.
func (a *App) Record(l audit.Undelivered, o audit.Outcome) audit.Record {
	keep := a.Settings.RecordTTL
	if l.Entry.TTL >= 0 {
		keep = max(keep, time.Duration(l.Entry.TTL)*time.Second)
	}
	return audit.Record{ID: l.Entry.ID, Timestamp: l.Entry.Timestamp, Retention: keep, Outcome: o}
}

// PutAgain puts undelivered entries once and records what came of it. It returns
// those that are left, each with what the destination said last.
func (a *App) PutAgain(ctx context.Context, undelivered []audit.Undelivered) (left []audit.Undelivered, err error) {
	entries := make([]audit.Entry, len(undelivered))
	for i := range undelivered {
		entries[i] = undelivered[i].Entry
	}
	verdicts, putErr := a.Destination.Put(ctx, entries)
	var records []audit.Record
	accepted := 0
	for i, v := range verdicts {
		l := undelivered[i]
		switch v.Status {
		case audit.Accepted:
			accepted++
			records = append(records, a.Record(l, audit.Delivered))
			continue
		case audit.Rejected:
			l.Outcome, l.Code, l.Reason = audit.Dead, v.Code, v.Reason
			l.Tries++
			r := a.Record(l, audit.Dead)
			r.Undelivered = &l
			records = append(records, r)
		case audit.Retryable: // what is recorded stays as it is
			l.Code, l.Reason = v.Code, v.Reason
		}
		left = append(left, l)
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
