package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// deferredEvery is how often tails try deferred entries. A reconcile always does.
const deferredEvery = time.Minute

// deferredFirst puts every deferred entry once more, before anything else.
func (ps *pass) deferredFirst(ctx context.Context) error {
	p := ps.p
	if err := ps.workers.RecordFirst(); err != nil {
		return err
	}
	p.mu.Lock()
	since := time.Since(p.lastDeferred)
	p.mu.Unlock()
	if ps.req.Kind == audit.Tail && since < deferredEvery {
		return nil
	}
	counts, err := p.opts.Undelivered.UndeliveredCounts(ctx)
	if err != nil {
		return fmt.Errorf("counting deferred entries: %w", err)
	}
	p.mu.Lock()
	p.lastDeferred = time.Now()
	p.mu.Unlock()
	if counts.Deferred == 0 {
		return nil
	}
	return ps.workers.PutDeferred(ctx, p.opts.Undelivered.UndeliveredEntries(ctx), counts.Deferred)
}
