package main

import (
	"context"
	"sync"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// repair makes a pass over the time in which something is missing: it holds the
// lease, and records what it puts, as every pass does. The pass takes entries that
// the destination lost for new.
func (v *verification) repair(ctx context.Context) error {
	again := &forgetful{store: v.app.store, lost: v.lost, since: v.first, until: v.last + 1}
	mender := *v.app
	mender.store = again
	sum, err := mender.pipeline(pipeline.Observer{}).Run(ctx, pipeline.Request{
		Kind: pipeline.Window, Since: again.since, Until: again.until, Wait: v.app.settings.LeaseWait,
	})
	r := &repairReport{Delivered: sum.Delivered, Dead: sum.Dead, Deferred: sum.Deferred, Failed: sum.Failed}
	r.Healed = err == nil && sum.Failed == 0 && again.left() == 0
	if err != nil {
		r.Error = err.Error()
	}
	v.report.Repaired = r
	return err
}

// forgetful is a ledger that calls some delivered entries new until they have been
// delivered again, and nothing new outside a span of time: a log without order
// is read whole. It is safe for concurrent use.
type forgetful struct {
	store
	since, until int64 // Unix seconds, until excluded

	mu   sync.Mutex
	lost map[key]int64
}

// Lookup does what the ledger does, but for what was lost.
func (f *forgetful) Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error) {
	outcomes, err := f.store.Lookup(ctx, entries)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, o := range outcomes {
		_, lost := f.lost[keyOf(entries[i].ID)]
		switch t := entries[i].Timestamp; {
		case t < f.since, t >= f.until:
			outcomes[i] = audit.Delivered
		case lost && o == audit.Delivered:
			outcomes[i] = audit.New
		}
	}
	return outcomes, nil
}

// Record does what the ledger does, and remembers what has been delivered again.
func (f *forgetful) Record(ctx context.Context, records []audit.Record) error {
	if err := f.store.Record(ctx, records); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range records {
		if records[i].Outcome == audit.Delivered {
			delete(f.lost, keyOf(records[i].ID))
		}
	}
	return nil
}

// left is how many entries have not been delivered again.
func (f *forgetful) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.lost)
}
