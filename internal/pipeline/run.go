package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/lease"
)

// maxRestarts bounds how often a pass starts over because its ledger was replaced.
const maxRestarts = 2

// Run makes one pass under the lease. Its summary is valid whatever the error.
//
// Passes of one pipeline are made one after the other, except for a tail while a
// reconcile is under way: it is made beside the reconcile's walk, and moves no
// mark. It fails with [ErrUnordered] where Kong keeps no order.
//
// Run starts over with a full read if the ledger was emptied, replaced or set back
// meanwhile. It fails with audit.ErrLeaseHeld if another process holds the lease,
// audit.ErrLeaseLost when the lease is gone, [ErrOutOfTime] near ctx's deadline,
// [delivery.ErrUnavailable] if the destination takes nothing, audit.ErrLogMismatch if the log
// is not the one that was read before, and *audit.SettingsError where a person has
// to act.
func (p *Pipeline) Run(ctx context.Context, req Request) (Summary, error) {
	begin := time.Now()
	total := Summary{Kind: req.Kind, Full: req.Full, Complete: true}
	var err error
	if read := req.OnRead; read != nil {
		req.OnRead = sync.OnceFunc(read)
	}
	for restarts := 0; ; restarts++ {
		var sum Summary
		sum, err = p.runLeased(ctx, req)
		total.Add(sum)
		total.Kind = sum.Kind
		if !audit.LedgerForgot(err) || restarts == maxRestarts {
			break
		}
		p.warnForgot(err)
		total.Complete, total.Failed = true, 0 // the next attempt does what this one did not
		if req.Kind != audit.Window {
			req.Kind, req.Full = audit.Reconcile, true
		}
	}
	total.Complete = total.Complete && err == nil
	total.Seconds = time.Since(begin).Seconds()
	return total, err
}

// hasRead reports to the caller of [Pipeline.Run] that a tail has read the log.
func (r *Request) hasRead() {
	if r.OnRead != nil && r.Kind == audit.Tail {
		r.OnRead()
	}
}

func (p *Pipeline) runLeased(ctx context.Context, req Request) (sum Summary, err error) {
	sum = Summary{Kind: req.Kind, Full: req.Full}
	if req.DryRun {
		p.passMu.Lock()
		defer p.passMu.Unlock()
		return p.runPass(ctx, ctx, nil, req)
	}
	rerun, err := p.opts.Lease.Do(ctx, req.RequestRerun, req.Wait, func(leased context.Context, h *lease.Held) error {
		var err error
		sum, err = p.joinOrRun(leased, ctx, h, req)
		if errors.Is(err, audit.ErrLeaseLost) {
			// If Redis was emptied, the lease is gone as well.
			if _, marksErr := p.opts.Marks.Marks(ctx); audit.LedgerForgot(marksErr) {
				return fmt.Errorf("%w: %w", marksErr, err)
			}
		}
		return err
	})
	sum.Rerun = rerun
	return sum, err
}

// joinOrRun makes a pass once the lease is held: a tail beside the reconcile under
// way where there is one, and anything else after it.
func (p *Pipeline) joinOrRun(ctx, parent context.Context, h *lease.Held, req Request) (Summary, error) {
	if req.Kind == audit.Tail {
		if current := p.join(); current != nil {
			sum, made, err := current.concurrentTail(ctx, &req)
			current.tails.running.Done()
			if made {
				return sum, err
			}
		}
	}
	p.passMu.Lock()
	defer p.passMu.Unlock()
	return p.runPass(ctx, parent, h, req)
}
