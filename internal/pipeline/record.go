package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// commit records what was decided, again and again: after acceptance it is the
// ledger that is retried, not the put. While it fails no new put is started.
func (d *delivery) commit(work context.Context, records []audit.Record, delivered []audit.Entry) error {
	var trouble chan struct{} // ours, if it is this commit that the others wait for
	defer func() {
		if trouble != nil {
			d.mu.Lock()
			d.stuck = nil
			d.mu.Unlock()
			close(trouble)
		}
	}()
	first := time.Now()
	for backoff := 50 * time.Millisecond; ; backoff = min(backoff*2, 2*time.Second) {
		begin := time.Now()
		err := d.p.opts.Ledger.Record(work, records)
		d.p.opts.Observer.stage("record", begin)
		if err == nil {
			break
		}
		if errors.Is(err, audit.ErrLedgerReplaced) || time.Since(first) > d.p.opts.RecordFor || work.Err() != nil {
			return unrecorded(records, err)
		}
		if trouble == nil {
			d.mu.Lock()
			if d.stuck == nil {
				trouble = make(chan struct{})
				d.stuck = trouble
			}
			d.mu.Unlock()
			if trouble != nil {
				d.p.log.Warn("ledger does not record, waiting for it", "entries", len(records), "err", err)
			}
		}
		if wait := d.p.wait(work, jitter(backoff)); wait != nil {
			return unrecorded(records, err)
		}
	}
	d.mu.Lock()
	for i := range records {
		delete(d.flight, records[i].ID)
	}
	d.mu.Unlock()
	if f := d.p.opts.Observer.Delivered; f != nil && len(delivered) > 0 {
		f(delivered)
	}
	return nil
}

func unrecorded(records []audit.Record, err error) error {
	return fmt.Errorf("recording %d entries that have an outcome (they may be repeated): %w", len(records), err)
}

// mayPut waits while the ledger fails to record, and tells why nothing should be put.
func (d *delivery) mayPut(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := d.valid(); err != nil {
			return err
		}
		d.mu.Lock()
		stuck := d.stuck
		d.mu.Unlock()
		if stuck == nil {
			return nil
		}
		select {
		case <-stuck:
		case <-ctx.Done():
		}
	}
}

func (d *delivery) record(e *audit.Entry, o audit.Outcome, l *audit.Undelivered) audit.Record {
	return audit.Record{ID: e.ID, Timestamp: e.Timestamp, Keep: d.keep(e), Outcome: o, Undelivered: l}
}

func letter(e *audit.Entry, o audit.Outcome, v audit.Verdict, tries int) *audit.Undelivered {
	return &audit.Undelivered{Entry: *e, Outcome: o, Code: v.Code, Reason: v.Reason, Since: time.Now().UTC(), Tries: tries}
}
