package pipeline

import (
	"context"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// Changes says what requests changed. Safe for concurrent use.
type Changes interface {
	// Hold reports whether a new entry must be joined before it is delivered. It makes no
	// call.
	Hold(e *audit.Entry) bool
	// Join returns the writes that need not wait any longer, with Changes set, and the time
	// at which to call it again for the others. What it sets for an entry is durable by
	// then: joining the entry again gives the same. Its errors are those of a look-up in
	// the ledger.
	Join(ctx context.Context, w audit.Writes) (ready []audit.Entry, again time.Time, err error)
}

// How many writes, and how many bytes of them, wait until those that need not wait are
// joined while the walk goes on. In a log that is not read oldest first each join may
// read far.
const (
	joinEntries, joinBytes         = 300, 1 << 20
	joinEntriesMany, joinBytesMany = 5000, 16 << 20
)

// joinSome joins writes while the walk goes on, so that they do not pile up. through is
// the time up to which the log has been read in order, or 0.
func (ps *pass) joinSome(ctx context.Context, through int64) error {
	entries, bytes := ps.workers.Held()
	most, mostBytes := joinEntries, joinBytes
	if ps.pos.Order != walk.OldestFirst {
		most, mostBytes = joinEntriesMany, joinBytesMany
	}
	if len(entries) < most && bytes < mostBytes {
		return nil
	}
	_, err := ps.join(ctx, ps.workers, audit.Writes{Floor: ps.bounds.Floor, Through: through})
	return err
}

// joinRest joins what is left when the walk has ended. A tail leaves what still waits to
// the next one; other passes wait for it.
func (ps *pass) joinRest(ctx context.Context) error {
	if ps.p.opts.Changes == nil || ps.req.DryRun {
		return nil
	}
	w := audit.Writes{Floor: ps.bounds.Floor, Through: ps.walk.KongTime().Unix()}
	switch ps.req.Kind {
	case audit.Tail:
		return ps.joinTail(ctx, ps.workers, &ps.req, w)
	case audit.Reconcile:
		w.Sweep = true
	default: // a window
		w.Through = 0 // it has not read all
	}
	for {
		again, err := ps.join(ctx, ps.workers, w)
		if err != nil || again.IsZero() {
			return err
		}
		w.Sweep = false
		timer := time.NewTimer(time.Until(again))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// joinTail joins what a tail has read, and asks for another one if some of it waits.
func (ps *pass) joinTail(ctx context.Context, pool *delivery.Workers, req *Request, w audit.Writes) error {
	if ps.p.opts.Changes == nil {
		return nil
	}
	w.Live = true
	again, err := ps.join(ctx, pool, w)
	if err != nil {
		return err
	}
	oldest := int64(0)
	entries, _ := pool.Held()
	for i := range entries {
		if oldest == 0 || entries[i].Timestamp < oldest {
			oldest = entries[i].Timestamp
		}
	}
	ps.p.mu.Lock()
	ps.p.heldFrom = oldest
	ps.p.mu.Unlock()
	if !again.IsZero() && req.OnHeld != nil {
		req.OnHeld(again)
	}
	return nil
}

// join joins the writes that a pool holds, and releases those that wait no longer.
func (ps *pass) join(ctx context.Context, pool *delivery.Workers, w audit.Writes) (again time.Time, err error) {
	w.Entries, _ = pool.Held()
	ready, again, err := ps.p.opts.Changes.Join(ctx, w)
	if err != nil {
		return time.Time{}, err
	}
	if err := pool.Release(ctx, ready); err != nil {
		return time.Time{}, err
	}
	return again, pool.Flush(ctx)
}
