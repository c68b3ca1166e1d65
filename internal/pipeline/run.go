package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// ErrOutOfTime ends a pass that stopped starting batches because its context's
// deadline was near. Summary.Left says what it did not get to; the next
// reconcile goes on there.
var ErrOutOfTime = errors.New("out of time before the pass was complete")

// Run makes a pass, and further ones as long as somebody leaves word meanwhile.
// The summary is valid whatever the error.
//
// It fails with audit.ErrLeaseHeld if another process is making a pass,
// ErrOutOfTime near the context's deadline, ErrUnavailable if the destination
// takes nothing, and *audit.SettingsError where a person has to act.
func (p *Pipeline) Run(ctx context.Context, req Request) (Summary, error) {
	p.passing.Lock()
	defer p.passing.Unlock()
	begin := time.Now()
	total := Summary{Kind: req.Kind, Full: req.Full, Complete: true}
	var err error
	for replaced := 0; ; replaced++ {
		err = p.rounds(ctx, req, &total)
		if !audit.LedgerForgot(err) || replaced == 2 {
			break
		}
		p.log.Warn("the ledger forgot what it knew, starting over with a full read", "err", err)
		p.own.forgotten()
		total.Complete, total.Failed = true, 0 // what was not done is done now
	}
	total.Complete = total.Complete && err == nil
	total.Seconds = time.Since(begin).Seconds()
	return total, err
}

// Own tells whether it was for a read of this pipeline that Kong gave out a request id.
func (p *Pipeline) Own(requestID string) bool {
	return p.own.has(audit.Identity(&audit.Entry{RequestID: requestID}))
}

// rounds holds the lease for a pass and for those that others leave word for.
func (p *Pipeline) rounds(ctx context.Context, req Request, total *Summary) error {
	if req.DryRun {
		_, err := p.pass(ctx, ctx, req, nil, total)
		return err
	}
	fresh, err := p.opts.Ledger.Begin(ctx)
	if err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	if fresh {
		p.own.forgotten()
	}
	leased, h, err := acquire(ctx, p.opts.Acquire, p.opts.LeaseTTL, req.Wait)
	if err != nil {
		return fmt.Errorf("getting the lease: %w", err)
	}
	defer h.end()
	begin := time.Now()
	for {
		owed, err := p.pass(leased, ctx, req, h, total)
		if errors.Is(err, audit.ErrLeaseLost) {
			// A ledger that was emptied has lost the lease as well.
			if _, marksErr := p.opts.Book.Marks(ctx); audit.LedgerForgot(marksErr) {
				err = marksErr
			}
		}
		late := time.Since(begin) > roundsFor
		if err == nil && owed && !late {
			req = Request{Kind: Tail, TailWanted: req.TailWanted, Word: req.Word}
			continue
		}
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
		word, releaseErr := h.lease.Release(release)
		stop := err != nil || late
		if word && stop {
			// Whoever left word is not served here. What it noted is in the ledger.
			_, releaseErr = h.lease.Release(release)
		}
		cancel()
		if err != nil {
			return err
		}
		if releaseErr != nil && !errors.Is(releaseErr, audit.ErrLeaseLost) {
			p.log.Warn("lease not released, it will run out by itself", "err", releaseErr)
		}
		if !word || stop {
			total.Word = word || owed
			return nil
		}
		if req.Word != nil {
			req.Word(leased)
		}
		req = Request{Kind: Tail, TailWanted: req.TailWanted, Word: req.Word}
	}
}
