package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	tailBack      = 5                // seconds that a tail looks back: rows are written after the response
	wideBack      = 5 * 60           // seconds that some tails look back: clocks of control planes differ
	wideEvery     = 10 * time.Second // how often: before an announced id counts as missing
	reconcileBack = 25 * 60 * 60     // seconds that a reconcile looks back
	fullEvery     = 24 * 60 * 60     // seconds after which a reconcile reads everything
	saveEvery     = time.Second      // how often marks move during a pass
	roundsFor     = 30 * time.Second // how long a run goes round again for others' sake
	releaseWithin = 3 * time.Second  // for giving up the lease once the pass is told to stop
	deadlineSlack = 10 * time.Second // most that is kept back of a deadline, for batches in flight
)

// pass is one walk of the log.
type pass struct {
	p     *Pipeline
	req   Request
	walk  *walk
	del   *delivery
	held  *held
	marks audit.Marks

	full     bool
	started  int64 // by Kong's clock
	newest   int64 // seen at the start, in orders other than oldest first
	saved    time.Time
	before   audit.Marks // as the pass found them
	misled   bool        // marks that it began with turned out to be ahead of Kong's clock
	deferred deferredTries

	pos     position // of the walk, as of the last page that was handled
	batcher batcher
	tails   *tails // beside the walk; nil until they begin
}

// pass makes a pass. owed tells that a tail was wanted beside it and has not been made.
func (p *Pipeline) pass(ctx, parent context.Context, req Request, h *held, total *Summary) (owed bool, err error) {
	marks, err := p.opts.Book.Marks(ctx)
	if err != nil {
		return false, fmt.Errorf("reading marks: %w", err)
	}
	if req.Kind == Tail && marks.Cursor == 0 {
		req.Kind = Reconcile // nothing to go on from
	}
	if deadline, ok := parent.Deadline(); ok {
		slack := min(time.Until(deadline)/4, deadlineSlack)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline.Add(-slack), ErrOutOfTime)
		defer cancel()
	}
	work, cancel := p.workContext(parent)
	defer cancel()

	ps := &pass{p: p, req: req, held: h, marks: marks, before: marks, saved: time.Now()}
	valid := func() error { return nil }
	if h != nil {
		valid = h.valid
	}
	ps.del = newDelivery(p, valid, ps.keep)
	ps.walk = &walk{p: p, order: p.order, until: req.Until}
	if err = ps.deliver(ctx, work); err == nil {
		err = ps.resolveSuspects(work)
	}
	if ctx.Err() != nil && err != nil && !audit.NeedsPerson(err) && !audit.LedgerForgot(err) {
		err = context.Cause(ctx) // why it ended says more than what broke because of that
	}
	saveErr := ps.finish(context.WithoutCancel(ctx), err == nil)
	ps.total(total, err == nil)
	if err == nil {
		err = saveErr
	} else if saveErr != nil && !errors.Is(saveErr, audit.ErrLeaseLost) {
		p.log.Warn("marks not saved, the next pass reads more again", "err", saveErr)
	}
	return ps.tails != nil && ps.tails.owed.Load() > 0, err
}

// deliver walks the log, with tails beside, until everything has an outcome.
func (ps *pass) deliver(ctx, work context.Context) error {
	p := ps.p
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	main, walking := newWorkers(ctx, ps.del, p.opts.Sink, p.opts.Workers, p.opts.FlightBytes)
	aside, tailing := newWorkers(ctx, ps.del, p.opts.UrgentSink, tailWorkers, p.opts.BatchBytes)
	// What stops the tails stops the walk.
	defer context.AfterFunc(tailing, func() { cancel(context.Cause(tailing)) })()
	ps.batcher = batcher{ps: ps, workers: main}
	walkErr := ps.run(walking, work, func() { ps.startTails(tailing, work, aside) })
	// Also what was read before the walk failed. Told to stop, flush says so.
	if flushErr := ps.batcher.flush(walking, work); walkErr == nil {
		walkErr = flushErr
	}
	err := main.wait()
	if err == nil {
		err = walkErr
	} else if walkErr != nil && !errors.Is(walkErr, context.Canceled) && errors.Is(err, context.Canceled) {
		err = walkErr
	}
	if err != nil {
		cancel(err)
	}
	if ps.tails != nil {
		ps.tails.stop()
	}
	tailErr := aside.wait()
	if err == nil || tailErr != nil && errors.Is(err, context.Canceled) {
		err = tailErr
	}
	return err
}

// workContext is for batches in flight: it outlives the caller's context by the
// grace, but not the caller's deadline. Losing the lease does not end it: what
// was accepted must still be recorded.
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

// keep is how long Kong still has the entry.
func (ps *pass) keep(e *audit.Entry) time.Duration {
	if e.TTL >= 0 {
		return time.Duration(min(e.TTL, 100*365*24*3600)) * time.Second
	}
	age := time.Duration(max(0, min(ps.walk.began.Unix()-e.Timestamp, 100*365*24*3600))) * time.Second
	return max(0, ps.p.opts.RecordTTL-age)
}

// run reads from the floor to the end and hands over what is new.
// underway is called with each page that was handed over.
func (ps *pass) run(ctx, work context.Context, underway func()) error {
	p, w := ps.p, ps.walk
	if ps.req.Kind == Reconcile || w.order == unknownOrder {
		if err := w.probe(ctx); err != nil {
			return err
		}
	}
	ps.pos = w.position()
	ps.setFloor()
	if !ps.req.DryRun && ps.req.Kind != Window {
		if err := ps.deferredFirst(ctx, work); err != nil {
			return err
		}
	}

	// The walk is one page ahead of what is done with pages.
	steps := make(chan step)
	walked := make(chan error, 1)
	walking, cancel := context.WithCancel(ctx)
	go func() {
		defer close(steps)
		walked <- w.run(walking, func(s step) error {
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
		ps.pos = w.position()
		p.order = w.order
	}()
	for {
		s, ok, err := ps.next(ctx, work, steps)
		if err != nil {
			return err
		}
		if !ok {
			return <-walked
		}
		if err := ps.step(ctx, work, s); err != nil {
			return err
		}
		underway()
	}
}

// next returns the next page. Unless it is there already, the batch that is being
// filled is put first: it does not wait for Kong.
func (ps *pass) next(ctx, work context.Context, steps <-chan step) (s step, ok bool, err error) {
	select {
	case s, ok = <-steps:
		return s, ok, nil
	default:
	}
	if err := ps.batcher.flush(ctx, work); err != nil {
		return step{}, false, err
	}
	s, ok = <-steps
	return s, ok, nil
}

// step does with a page what is to be done, up to handing it over.
func (ps *pass) step(ctx, work context.Context, s step) error {
	ps.pos = s.pos
	if s.restart {
		ps.del.restart()
		return ps.rewind(ctx)
	}
	if f := ps.p.opts.Observer.Stage; f != nil {
		f("read", s.took)
	}
	if err := ps.batcher.page(ctx, work, s.entries, ps.walk.began.Unix()); err != nil {
		return err
	}
	ps.del.read(s.through, s.offset)
	if f := ps.p.opts.Observer.Progress; f != nil {
		f(ps.summary())
	}
	if ps.req.DryRun || ps.req.Kind == Window {
		return nil
	}
	if time.Since(ps.saved) >= saveEvery {
		ps.saved = time.Now()
		err := ps.save(ctx, false)
		if errors.Is(err, audit.ErrLeaseLost) || audit.LedgerForgot(err) {
			return err
		}
		if err != nil {
			ps.p.log.Warn("marks not saved, trying again with the next pages", "err", err)
		}
	}
	return nil
}

func (ps *pass) summary() Summary {
	d := ps.del
	d.mu.Lock()
	s := d.sum
	d.mu.Unlock()
	s.Kind, s.Full, s.Order = ps.req.Kind, ps.full, ps.pos.order.String()
	s.Pages += ps.pos.pages
	s.Through = ps.marks.Cursor
	return s
}

// total adds this pass to the run's summary.
func (ps *pass) total(total *Summary, complete bool) {
	s := ps.summary()
	s.Complete = complete
	s.Failed = max(0, s.New-s.Delivered-s.Dead-s.Deferred)
	if ps.req.DryRun {
		s.Failed = 0
	}
	if !complete && !ps.walk.began.IsZero() {
		s.Left = "everything that was not read yet"
		if safe := ps.del.safe(); safe > 0 {
			s.Left = "entries after " + time.Unix(safe, 0).UTC().Format(time.RFC3339)
		}
	}
	total.add(s)
	total.Order, total.Left = s.Order, s.Left
	if s.Kind == Reconcile && total.Kind == Tail {
		total.Kind = Reconcile // what a tail without marks becomes
	}
	total.Full = total.Full || s.Full
}
