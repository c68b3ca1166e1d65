// Package runner makes the passes that the scheduler asks for: for the daemon until it
// is told to stop, for a Lambda invocation until nothing is left to do.
package runner

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

const (
	// sweepEvery is how often ids that were seen are struck off the ledger's list, and
	// listEvery how often that list is read: an id that another relay noted before it
	// died is looked for within that time.
	sweepEvery = 5 * time.Second
	listEvery  = 10 * time.Second

	// ledgerWithin bounds what the loop asks the ledger between passes.
	ledgerWithin = 3 * time.Second

	// clockSlack is how far Kong's clock may be ahead of this machine's.
	clockSlack = 5 * time.Minute
)

// Passes makes passes. [*pipeline.Pipeline] is one.
type Passes interface {
	Run(ctx context.Context, req pipeline.Request) (pipeline.Summary, error)
}

// Ledger is what a runner needs of a ledger. Safe for concurrent use.
type Ledger interface {
	delivery.Ledger // tells which announced ids are delivered already
	pipeline.OwnReads
	pipeline.Marks

	// Announced returns the list of announced ids.
	Announced(ctx context.Context) ([]audit.Announcement, error)
	// Announce adds ids; one that is on the list keeps its time.
	Announce(ctx context.Context, ids []string, at time.Time) error
	Unannounce(ctx context.Context, ids []string) error
	// LeaseLeft returns how long another relay's lease lasts unless it is renewed, 0 if
	// nobody holds it.
	LeaseLeft(ctx context.Context) (time.Duration, error)
}

// Options of a runner. All but Observer and Logger are required.
type Options struct {
	Passes    Passes
	Scheduler *announce.Scheduler
	Ledger    Ledger
	// Schedule is the time between reconciles, which relays on one ledger share.
	Schedule time.Duration
	// LeaseWait is how long a reconcile waits for the lease.
	LeaseWait time.Duration
	Observer  Observer
	Logger    *slog.Logger
}

// Observer holds callbacks. Every field may be nil; none may block.
type Observer struct {
	// Began is called when a pass begins.
	Began func(p audit.PassKind)
	// Ended is called when a pass has ended. The error is audit.ErrLeaseHeld if it was left
	// to another process.
	Ended func(p audit.PassKind, s pipeline.Summary, err error)
	// Missing is called with ids that were announced and have not shown up in time.
	Missing func(ids []string)
}

// Runner makes passes. Its methods are safe for concurrent use; [Runner.Run] and
// [Runner.RunUntilIdle] may not run at the same time.
type Runner struct {
	opts   Options
	log    *slog.Logger
	wake   chan struct{} // has one element after a trigger
	reruns chan struct{} // has one element after a rerun request
}

// New returns a runner.
func New(o Options) *Runner {
	return &Runner{opts: o, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), wake: make(chan struct{}, 1), reruns: make(chan struct{}, 1)}
}

type ended struct {
	pass   audit.PassKind
	result announce.Result
	err    error
}

// RequestRerun asks for a tail soon, because another process has requested a rerun. It does
// not block.
func (r *Runner) RequestRerun() { signal(r.reruns) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run makes passes until ctx ends, and returns once those under way have ended.
func (r *Runner) Run(ctx context.Context) error {
	r.readList(ctx)
	return r.loop(ctx, time.Time{})
}

// RunUntilIdle makes passes until nothing is left to do, a pass fails, or another process
// holds the lease (audit.ErrLeaseHeld). It starts no pass after last. If ctx ends, it returns
// what the pass under way makes of that, or ctx's cause where there is none.
func (r *Runner) RunUntilIdle(ctx context.Context, last time.Time) error {
	r.readList(ctx)
	return r.loop(ctx, last)
}

// loop makes passes until ctx ends. If last is not zero, loop also ends when a pass fails,
// and when no pass is under way and none is to begin until then.
func (r *Runner) loop(ctx context.Context, last time.Time) error {
	forever := last.IsZero()
	s := r.opts.Scheduler
	results := make(chan ended)
	underWay := 0
	passes, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		for ; underWay > 0; underWay-- {
			e := <-results
			s.Ended(time.Now(), e.pass, e.result)
		}
		r.sweep(context.WithoutCancel(ctx))
	}()
	sweep, list := time.NewTicker(sweepEvery), time.NewTicker(listEvery)
	defer sweep.Stop()
	defer list.Stop()
	for {
		start, nextAt := r.next(last)
		if start.Kind != audit.NoPass {
			underWay++
			go func() { results <- r.pass(passes, start) }()
			continue
		}
		if !forever && underWay == 0 && (nextAt.IsZero() || nextAt.After(last)) {
			return nil
		}
		stopped := ctx.Done()
		if !forever && underWay > 0 {
			stopped = nil // the pass ends as well, and its error tells more
		}
		select {
		case <-stopped:
			return context.Cause(ctx)
		case e := <-results:
			underWay--
			r.end(ctx, e)
			if e.err != nil && !forever {
				return e.err
			}
		case <-r.reruns:
			// The ids that the other process noted are on the list.
			r.readList(ctx)
			s.RequestTail(time.Now(), time.Now())
		case <-sweep.C:
			r.sweep(ctx)
		case <-list.C:
			r.readList(ctx)
		case <-r.wake:
		case <-dueAt(nextAt):
		}
	}
}

// dueAt returns a channel that receives at a time, and never for the zero time.
func dueAt(t time.Time) <-chan time.Time {
	if t.IsZero() {
		return nil
	}
	return time.After(time.Until(t))
}

func (r *Runner) end(ctx context.Context, e ended) {
	r.opts.Scheduler.Ended(time.Now(), e.pass, e.result)
	r.sweep(ctx)
	if e.result.LeaseHeld || e.result.Rerun {
		r.readList(ctx) // for the ids that the other process noted
	}
}

// next returns the pass that is to begin now, or when the next one is; none after last, if
// that is not zero.
func (r *Runner) next(last time.Time) (start announce.Start, at time.Time) {
	now := time.Now()
	if !last.IsZero() && now.After(last) {
		return announce.Start{}, time.Time{}
	}
	return r.opts.Scheduler.Next(now)
}

func (r *Runner) pass(ctx context.Context, start announce.Start) ended {
	e := ended{pass: start.Kind, result: announce.Result{Began: time.Now()}}
	req := pipeline.Request{Kind: start.Kind, RequestRerun: !start.Standby}
	if start.Kind == audit.Reconcile {
		req.Wait = r.opts.LeaseWait
		if e.result.Reconciled = r.recentReconcile(ctx, start.Forced); !e.result.Reconciled.IsZero() {
			return e
		}
	} else if !r.tailNeeded(ctx) {
		return e
	}
	if f := r.opts.Observer.Began; f != nil {
		f(start.Kind)
	}
	if start.Kind == audit.Tail {
		req.OnRead = func() {
			e.result.LogRead = true
			r.opts.Scheduler.TailRead()
			signal(r.wake)
		}
		req.OnHeld = func(at time.Time) {
			r.opts.Scheduler.RequestTail(time.Now(), at)
			signal(r.wake)
		}
	}
	sum, err := r.opts.Passes.Run(ctx, req)
	if f := r.opts.Observer.Ended; f != nil {
		f(start.Kind, sum, err)
	}
	e.result.Rerun = sum.Rerun
	e.result.Unordered = sum.Unordered()
	switch {
	case err == nil:
	case errors.Is(err, audit.ErrLeaseHeld):
		e.result.LeaseHeld, e.err = true, err
		e.result.LeaseLeft = r.leaseLeft(ctx)
	case errors.Is(err, pipeline.ErrUnordered):
		e.result.Blocked = true
	default:
		e.result.Failed, e.err = true, err
	}
	return e
}

// tailNeeded reports whether a tail still has something to look for. Relays that read
// through the route that triggers them must not trigger each other without end: ids
// of own reads, of any relay on this ledger, are not worth a tail.
func (r *Runner) tailNeeded(ctx context.Context) bool {
	s := r.opts.Scheduler
	if ids := s.MaybeOwnReads(time.Now()); len(ids) > 0 {
		are, err := r.opts.Ledger.AreOwnReads(ctx, ids)
		if err != nil {
			r.log.Debug("own reads not told apart", "err", err)
		}
		var own []string
		for i, is := range are {
			if is {
				own = append(own, ids[i])
			}
		}
		s.Ignore(own)
	}
	return s.TailNeeded()
}

// recentReconcile returns the start of the last reconcile, of this or another relay, if it
// is less than three quarters of the schedule ago, so that none is needed now; else zero.
func (r *Runner) recentReconcile(ctx context.Context, forced bool) time.Time {
	if forced || r.opts.Schedule <= 0 {
		return time.Time{}
	}
	m, err := r.opts.Ledger.Marks(ctx)
	if err != nil || m.ReconciledThrough == 0 || m.FullAt == 0 || m.Resume != nil {
		return time.Time{} // if marks cannot be read, the pass says so
	}
	began, now := time.Unix(m.ReconciledThrough, 0), time.Now()
	if began.After(now.Add(clockSlack)) || now.Sub(began) >= r.opts.Schedule*3/4 {
		return time.Time{}
	}
	return began
}

// leaseLeft returns how long another process's lease lasts. If the ledger does not
// say, the next attempt at the lease finds out.
func (r *Runner) leaseLeft(ctx context.Context) time.Duration {
	left, err := r.opts.Ledger.LeaseLeft(ctx)
	if err != nil {
		r.log.Debug("lease not looked at", "err", err)
		return 0
	}
	return left
}
