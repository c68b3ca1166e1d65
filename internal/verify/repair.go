package verify

import (
	"context"
	"sync"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// repair makes a pass over the time in which something is missing. As every pass does, it
// holds the lease and records what it puts; to this one the entries that the destination or
// the ledger has lost look new.
func (v *verification) repair(ctx context.Context) error {
	again := &overlay{Store: v.app.Store, hash: v.held.hash, lost: v.lost, again: v.again, since: v.gaps.first, until: v.gaps.last + 1}
	repairing := *v.app
	repairing.Store = again
	sum, err := repairing.Pipeline(pipeline.Observer{}, nil).Run(ctx, pipeline.Request{
		Kind: audit.Window, RequestRerun: true, Since: again.since, Until: again.until, Wait: v.app.Settings.LeaseWait,
	})
	r := &RepairReport{Delivered: sum.Delivered, Dead: sum.Dead, Deferred: sum.Deferred, Failed: sum.Failed}
	r.Repaired = err == nil && sum.Failed == 0 && again.left() == 0
	if err != nil {
		r.Error = err.Error()
	}
	v.report.Repaired = r
	if err != nil {
		return err
	}
	counts, err := v.app.Store.UndeliveredCounts(ctx)
	v.report.DeadLetters, v.report.DeferredEntries = counts.Dead, counts.Deferred
	return err
}

// overlay is a ledger to which delivered entries that the destination has lost are new until
// they have been delivered again, and undelivered entries that the ledger has lost until they
// have an outcome. Outside a span of time everything counts as delivered, since a log without
// order is read whole. It is safe for concurrent use.
type overlay struct {
	app.Store
	since, until int64 // Unix seconds, until excluded

	hash func(id string) uint64

	mu    sync.Mutex
	lost  map[uint64]struct{}
	again map[uint64]struct{} // undelivered entries that the ledger no longer has
}

// Lookup returns the ledger's outcomes, except for what was lost or is outside the span.
func (f *overlay) Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error) {
	outcomes, err := f.Store.Lookup(ctx, entries)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, o := range outcomes {
		k := f.hash(entries[i].ID)
		_, lost := f.lost[k]
		_, again := f.again[k]
		switch t := entries[i].Timestamp; {
		case t < f.since, t >= f.until:
			outcomes[i] = audit.Delivered
		case lost && o == audit.Delivered, again && (o == audit.Dead || o == audit.Deferred):
			outcomes[i] = audit.NoOutcome
		}
	}
	return outcomes, nil
}

// Record records in the ledger, and removes from what was lost what has an outcome now.
func (f *overlay) Record(ctx context.Context, records []audit.Record) error {
	if err := f.Store.Record(ctx, records); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range records {
		delete(f.again, f.hash(records[i].ID))
		if records[i].Outcome == audit.Delivered {
			delete(f.lost, f.hash(records[i].ID))
		}
	}
	return nil
}

// left returns how many entries are still lost.
func (f *overlay) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.lost) + len(f.again)
}
