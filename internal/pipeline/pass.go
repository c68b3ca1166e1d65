package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/lease"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

const (
	clockDisagreement = 5 * 60 // seconds by which the clocks of control planes may differ

	tailLookback      = 5                 // seconds: rows are written after the response
	wideLookback      = clockDisagreement // seconds, of some tails
	wideEvery         = 10 * time.Second  // how often a tail looks back that far; short enough that it happens before an announced id counts as missing (30 s)
	reconcileLookback = 25 * 60 * 60      // seconds
	fullEvery         = 24 * 60 * 60      // seconds after which a reconcile reads everything
	saveEvery         = time.Second       // how often marks move during a pass
	saveWithin        = 3 * time.Second   // for the marks once the pass has ended
	deadlineSlack     = 10 * time.Second  // at most this much time before a deadline is left to batches in flight
)

// pass is one walk of the log with everything that is done with it.
type pass struct {
	p      *Pipeline
	req    Request
	lease  *lease.Held // nil for a dry run
	walk   *walk.Walk
	bounds walk.Bounds
	del    *delivery.Delivery

	before audit.Marks // as the pass found them
	marks  audit.Marks // as they are now
	// untrustedStart: the marks that the pass began with are ahead of Kong's clock.
	untrustedStart bool
	began          time.Time // by this machine's clock
	saved          time.Time // when the marks were last written
	full           bool
	forgotUpTo     int64        // the ledger has lost what it had recorded up to this second; 0: nothing
	repeated       atomic.Int64 // entries delivered again for that reason
	kongStart      int64        // when the pass began, by Kong's clock
	newest         int64        // newest timestamp at the start of a reconcile that is resumed; orders other than oldest first
	witnesses      witnesses

	pos     walk.Position     // as of the last page that was handled
	workers *delivery.Workers // of the walk
	tails   concurrentTails
}

// runPass makes one pass. ctx ends with the lease, parent does not: what is in flight
// when the lease is lost is still recorded.
func (p *Pipeline) runPass(ctx, parent context.Context, held *lease.Held, req Request) (Summary, error) {
	marks, err := p.opts.Marks.Marks(ctx)
	if err != nil {
		return Summary{Kind: req.Kind, Full: req.Full}, fmt.Errorf("reading marks: %w", err)
	}
	if req.Kind == audit.Tail && marks.Cursor == 0 {
		req.Kind = audit.Reconcile // there is nothing to go on from
	}
	if deadline, ok := parent.Deadline(); ok {
		slack := min(time.Until(deadline)/4, deadlineSlack)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline.Add(-slack), ErrOutOfTime)
		defer cancel()
	}
	work, cancel := p.workContext(parent)
	defer cancel()

	ps := &pass{
		p: p, req: req, lease: held, marks: marks, before: marks, began: time.Now(), saved: time.Now(),
		walk: p.reader.Walk(), witnesses: witnesses{recorded: marks.Witnesses},
		forgotUpTo: p.memory.forgottenUpTo(&marks),
	}
	if ps.forgotUpTo > 0 {
		p.warnForgot(nil)
	}
	ps.del = ps.newDelivery()
	if err = ps.deliver(ctx, work); err == nil {
		err = ps.workers.RejectOverdue()
	}
	if err == nil {
		err = ps.checkWitnesses()
	}
	if ctx.Err() != nil && err != nil && !audit.NeedsPerson(err) && !audit.LedgerForgot(err) {
		err = ended(context.Cause(ctx), err)
	}
	saveErr := ps.finish(context.WithoutCancel(ctx), err)
	if saveErr == nil {
		p.memory.note(&ps.marks)
	}
	if err == nil {
		err = saveErr
	} else if saveErr != nil && !errors.Is(saveErr, audit.ErrLeaseLost) {
		p.log.Warn("marks not saved, the next pass reads more again", "err", saveErr)
	}
	return ps.total(err == nil), err
}

// ended returns the error of a pass whose context ended: the cause, and not what broke
// because of it. Where time ran out over a failure that has a hint, it returns both.
func ended(cause, err error) error {
	if errors.Is(cause, ErrOutOfTime) && audit.Hint(err) != "" {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return cause
}

// deliver walks the log until everything has an outcome, including what concurrent
// tails have found. work is the context of calls in flight.
func (ps *pass) deliver(ctx, work context.Context) error {
	p := ps.p
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ps.tails.init(cancel)
	main, walking := ps.del.NewWorkers(ctx, work, p.opts.Destination, p.opts.Workers, p.opts.FlightBytes)
	ps.workers = main
	if ps.lease != nil && ps.req.Kind != audit.Window {
		p.setCurrent(ps)
	}
	walkErr := ps.walkLog(walking)
	// This also puts what was read before the walk failed. If the pass was told to
	// stop, Flush returns why.
	if flushErr := ps.workers.Flush(walking); walkErr == nil {
		walkErr = flushErr
	}
	if walkErr == nil {
		ps.req.hasRead()
		walkErr = ps.joinRest(walking)
	}
	err := firstFailure(main.Wait(), walkErr)
	if err != nil {
		cancel(err)
	}
	p.setCurrent(nil)
	return firstFailure(err, ps.tails.close(err))
}

// firstFailure returns the first of two errors that is not nil. context.Canceled never
// hides the other one.
func firstFailure(a, b error) error {
	if a == nil || errors.Is(a, context.Canceled) && b != nil && !errors.Is(b, context.Canceled) {
		return b
	}
	return a
}

// workContext returns the context of batches in flight. It outlives the caller's context
// by the grace, but not the caller's deadline. It does not end when the lease is lost:
// what was accepted must still be recorded.
func (p *Pipeline) workContext(parent context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(parent))
	grace := p.opts.Grace
	stop := context.AfterFunc(parent, func() {
		if errors.Is(parent.Err(), context.DeadlineExceeded) {
			cancel()
			return
		}
		t := time.AfterFunc(grace, cancel)
		context.AfterFunc(work, func() { t.Stop() })
	})
	return work, func() { stop(); cancel() }
}

// newDelivery returns the delivery that the pass and its concurrent tails share.
func (ps *pass) newDelivery() *delivery.Delivery {
	o := &ps.p.opts
	options := delivery.Options{
		Ledger: o.Ledger, Valid: func() error { return nil }, Retention: ps.retention, Unrecorded: &ps.p.unrecorded,
		BatchEntries: o.BatchEntries, BatchBytes: o.BatchBytes,
		RetryFor: o.RetryFor, RecordFor: o.RecordFor,
		DryRun: ps.req.DryRun, Prepare: o.Prepare, Logger: ps.p.log,
		Observer: delivery.Observer{
			Stage: o.Observer.Stage, Seen: o.Observer.Seen, Delivered: o.Observer.Delivered, OldestPending: o.Observer.OldestPending, New: o.Observer.New,
		},
	}
	if ps.lease != nil {
		options.Valid = ps.lease.Valid
	}
	if o.Changes != nil {
		options.Hold = o.Changes.Hold
	}
	if o.SkipOwnReads && o.OwnReads != nil {
		options.OwnReads = ps.p.ownReads
	}
	if ps.forgotUpTo > 0 {
		options.Observer.Delivered = ps.countRepeated(o.Observer.Delivered)
	}
	return delivery.New(options)
}

// countRepeated wraps an observer: it counts the delivered entries that the ledger had
// recorded and lost.
func (ps *pass) countRepeated(delivered func([]audit.Entry)) func([]audit.Entry) {
	return func(entries []audit.Entry) {
		for i := range entries {
			if entries[i].Timestamp <= ps.forgotUpTo {
				ps.repeated.Add(1)
			}
		}
		if delivered != nil {
			delivered(entries)
		}
	}
}

// retention returns how long Kong still retains an entry.
func (ps *pass) retention(e *audit.Entry) time.Duration {
	if e.TTL >= 0 {
		return time.Duration(min(e.TTL, 100*365*24*3600)) * time.Second
	}
	age := time.Duration(max(0, min(ps.walk.KongTime().Unix()-e.Timestamp, 100*365*24*3600))) * time.Second
	return max(0, ps.p.opts.RecordTTL-age)
}

// walkLog reads from the floor to the end and delivers what is new.
func (ps *pass) walkLog(ctx context.Context) error {
	w := ps.walk
	if ps.req.Kind == audit.Reconcile || w.Order() == walk.Unknown {
		if err := w.Probe(ctx); err != nil {
			return err
		}
	}
	ps.pos = w.Position()
	ps.setBounds()
	if ps.movesMarks() {
		if err := ps.deferredFirst(ctx); err != nil {
			return err
		}
	}

	// The next page is read while one is handled.
	steps := make(chan walk.Step)
	walked := make(chan error, 1)
	walking, cancel := context.WithCancel(ctx)
	go func() {
		defer close(steps)
		walked <- w.Run(walking, ps.bounds, func(s walk.Step) error {
			select {
			case steps <- s:
				return nil
			case <-walking.Done():
				return context.Cause(walking)
			}
		})
	}()
	defer func() {
		cancel()
		for range steps { // until the walk has ended
		}
		ps.pos = w.Position()
	}()
	for {
		s, ok, err := ps.next(ctx, steps)
		if err != nil {
			return err
		}
		if !ok {
			return <-walked
		}
		if err := ps.handlePage(ctx, s); err != nil {
			return err
		}
		ps.tails.begin(ps.pos.Order, ps.marks.Cursor)
	}
}

// next returns the next page. If the page has not arrived yet, next first puts the batch
// that is being filled, which need not wait for Kong.
func (ps *pass) next(ctx context.Context, steps <-chan walk.Step) (s walk.Step, ok bool, err error) {
	select {
	case s, ok = <-steps:
		return s, ok, nil
	default:
	}
	if err := ps.workers.Flush(ctx); err != nil {
		return walk.Step{}, false, err
	}
	s, ok = <-steps
	return s, ok, nil
}

// movesMarks reports whether the pass may move marks.
func (ps *pass) movesMarks() bool { return !ps.req.DryRun && ps.req.Kind != audit.Window }

// handlePage hands a page to the workers, and saves the marks once a second.
func (ps *pass) handlePage(ctx context.Context, s walk.Step) error {
	ps.pos = s.Position
	if s.Restart {
		ps.del.Restart()
		ps.bounds.Offset, ps.newest = "", 0 // it reads from the beginning
		return ps.rewind(ctx)
	}
	if f := ps.p.opts.Observer.Stage; f != nil {
		f("read", s.Took)
	}
	kongTime := ps.walk.KongTime().Unix()
	for i := range s.Entries {
		ps.witnesses.see(&s.Entries[i], kongTime, ps.p.opts.RecordTTL)
	}
	if err := ps.workers.Add(ctx, s.Entries, ps.walk.Now().Unix()); err != nil {
		return err
	}
	ps.del.NoteRead(s.Through, s.Offset)
	if err := ps.joinSome(ctx, s.Through); err != nil {
		return err
	}
	if f := ps.p.opts.Observer.Progress; f != nil {
		f(ps.summary())
	}
	if !ps.movesMarks() || time.Since(ps.saved) < saveEvery {
		return nil
	}
	ps.saved = time.Now()
	err := ps.save(ctx, false)
	if errors.Is(err, audit.ErrLeaseLost) || audit.LedgerForgot(err) {
		return err
	}
	if err != nil {
		ps.p.log.Warn("marks not saved, trying again with the next pages", "err", err)
	}
	return nil
}

// checkWitnesses returns audit.ErrLogMismatch if the log is not the one that was read
// before: it shows none of the entries that the marks name and that Kong must still have.
func (ps *pass) checkWitnesses() error {
	if !ps.movesMarks() || ps.p.opts.Adopt {
		return nil
	}
	if missing := ps.witnesses.missing(ps.bounds.Floor, ps.walk.KongTime().Unix()); missing > 0 && ps.bounds.Offset == "" {
		return LogMismatch(missing)
	}
	return nil
}

// LogMismatch returns audit.ErrLogMismatch with a hint, for a log that shows none of the
// recorded entries that are missing from it.
func LogMismatch(missing int) error {
	return audit.WithHint(fmt.Errorf("%w: none of %d entries that it should still retain", audit.ErrLogMismatch, missing),
		"find out whether KONG_ADMIN_API is still the same Kong and whether its audit table was emptied; if all is well, run once with --adopt (RELAY_ADOPT=true)")
}

func (ps *pass) summary() Summary {
	c := ps.del.Counts()
	c.Repeated += int(ps.repeated.Load())
	return Summary{
		Kind: ps.req.Kind, Full: ps.full, Order: ps.pos.Order.String(), Pages: ps.pos.Pages + ps.tails.pagesRead(),
		Counts: c, Through: ps.marks.Cursor, Seconds: time.Since(ps.began).Seconds(),
	}
}

// total returns the summary of the pass at its end.
func (ps *pass) total(complete bool) Summary {
	s := ps.summary()
	s.Complete = complete
	s.Failed = max(0, s.New-s.Delivered-s.Dead-s.Deferred)
	if ps.req.DryRun {
		s.Failed = 0
	}
	if !complete && !ps.walk.KongTime().IsZero() {
		s.Left = "everything that was not read yet"
		if safe := ps.del.Safe(); safe > 0 {
			s.Left = "entries after " + time.Unix(safe, 0).UTC().Format(time.RFC3339)
		}
	}
	return s
}
