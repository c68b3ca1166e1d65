// Package daemon is the relay as a service: it takes triggers, makes passes on a
// schedule, and shows how things stand.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/runner"
)

const (
	bindRetryFirst = 2 * time.Second // after the ledger could not be reached at the start
	bindRetryLast  = time.Minute
	stopWithin     = 15 * time.Second
	marksEvery     = 5 * time.Second
	countsKeep     = 10 * time.Second // how long counts of undelivered entries are shown before they are read again
)

// server is the daemon.
type server struct {
	app       *app.App
	log       *slog.Logger
	scheduler *announce.Scheduler
	runner    *runner.Runner
	metrics   *metrics
	ready     readiness
	opts      Options

	countsMu       sync.Mutex
	countsAt       time.Time
	dead, deferred int
}

// Options are what a host wants to know of the daemon. All may be nil.
type Options struct {
	Delivered func(entries []audit.Entry) // called with what was accepted and recorded
	Listening func(addr string)           // called with the trigger listener's address
}

// Run listens and makes passes until ctx ends. It returns nil if ctx ended it.
func Run(ctx context.Context, a *app.App, o Options) error {
	return newServer(a, o).run(ctx)
}

func newServer(a *app.App, o Options) *server {
	s := &server{app: a, log: a.Log, opts: o}
	s.scheduler = announce.New(announce.Options{Debounce: a.Settings.Debounce, Schedule: a.Settings.Schedule})
	s.metrics = newMetrics(s.scheduler.Counts, s.undelivered)
	passes := a.Pipeline(pipeline.Observer{
		Stage: func(stage string, took time.Duration) {
			s.metrics.stages.WithLabelValues(stage).Observe(took.Seconds())
		},
		Seen:      func(entries []audit.Entry) { s.scheduler.Seen(time.Now(), entries) },
		Waiting:   s.metrics.waiting,
		Delivered: s.delivered,
	}, a.Lease(func() { s.runner.RequestRerun() }))
	s.runner = a.Runner(s.scheduler, passes, runner.Observer{
		Began:   func(announce.Pass) { s.metrics.lease.Inc() },
		Ended:   s.ended,
		Missing: func(ids []string) { s.metrics.missing.Add(float64(len(ids))) },
	}, 0)
	return s
}

// delivered takes entries that were accepted and recorded.
func (s *server) delivered(entries []audit.Entry) {
	s.metrics.delivered(entries)
	for _, ago := range s.scheduler.Delivered(time.Now(), entries) {
		s.metrics.answer.Observe(ago.Seconds())
	}
	if s.opts.Delivered != nil {
		s.opts.Delivered(entries)
	}
}

// run listens and makes passes until ctx ends.
func (s *server) run(ctx context.Context) error {
	set := s.app.Settings
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	abort := func(err error) error { // of a start that failed: what runs by then is ended and waited for
		stop()
		_ = group.Wait() // says only that it was told to stop
		return err
	}
	listen := func(name, addr string, h http.Handler) (net.Addr, error) {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, audit.Settingsf("stop what has that address, or choose another: --listen for triggers, --ops-listen for operations; off for none",
				"listening for %s: %w", name, err)
		}
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
			IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
		group.Go(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serving %s: %w", name, err)
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
			defer cancel()
			return srv.Shutdown(stop)
		})
		return l.Addr(), nil
	}
	if set.OpsListen != "" {
		addr, err := listen("operations", set.OpsListen, s.opsHandler())
		if err != nil {
			return abort(err)
		}
		s.log.Info("operations listener ready", "addr", addr.String())
	}
	group.Go(func() error { return s.passes(ctx) })
	group.Go(func() error { return s.followMarks(ctx) })
	if set.Listen != "" {
		addr, err := listen("triggers", set.Listen, s.triggerHandler())
		if err != nil {
			return abort(err)
		}
		s.log.Info("trigger listener ready", "addr", addr.String())
		if s.opts.Listening != nil {
			s.opts.Listening(addr.String())
		}
	}
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil // told to stop
	}
	s.log.Info("stopped")
	return err
}

// passes makes passes until ctx ends: a reconcile at once, unless another relay has made
// one of late, and on the schedule; a tail at once, and whenever a trigger asks for one.
func (s *server) passes(ctx context.Context) error {
	if err := s.bindOrWait(ctx); err != nil {
		return err
	}
	s.readMarks(ctx)
	s.scheduler.RequestReconcile(time.Now(), false)
	s.scheduler.RequestTail(time.Now())
	return s.runner.Run(ctx)
}

// bindOrWait ties the ledger to this Kong; a ledger that is down is waited for.
func (s *server) bindOrWait(ctx context.Context) error {
	for wait := bindRetryFirst; ; wait = min(wait*2, bindRetryLast) {
		err := s.app.Bind(ctx)
		if err == nil || errors.Is(err, audit.ErrForeignLedger) || errors.Is(err, audit.ErrEvicting) {
			return err
		}
		s.ready.set(err)
		s.metrics.failing.Inc()
		s.log.Error("ledger not reachable, trying again", app.ErrorAttrs(err)...)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// ended takes the end of a pass.
func (s *server) ended(p announce.Pass, sum pipeline.Summary, err error) {
	s.metrics.lease.Dec()
	log := s.log.With("kind", string(sum.Kind), "full", sum.Full, "order", sum.Order, "pages", sum.Pages, "read", sum.Read, "new", sum.New,
		"delivered", sum.Delivered, "failed", sum.Failed, "dead", sum.Dead, "deferred", sum.Deferred, "seconds", sum.Seconds)
	switch {
	case errors.Is(err, audit.ErrLeaseHeld):
		s.ready.set(nil)
		s.metrics.standby()
		log.Debug("another relay makes the pass")
		return
	case errors.Is(err, pipeline.ErrUnordered):
		log.Debug("tail waits for the reconcile under way")
		return
	case errors.Is(err, context.Canceled): // the relay was told to stop
		return
	}
	s.metrics.pass(sum, err)
	if err != nil || !sum.Beside {
		s.ready.set(err)
	}
	switch {
	case err != nil:
		log.Error("pass failed, trying again soon", app.ErrorAttrs(app.Explain(err))...)
	case sum.New > 0 || p == announce.Reconcile:
		log.Info("pass complete")
	default:
		log.Debug("pass complete")
	}
}

// followMarks reads now and then when a pass of any relay was last complete.
func (s *server) followMarks(ctx context.Context) error {
	tick := time.NewTicker(marksEvery)
	defer tick.Stop()
	for {
		s.readMarks(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// readMarks takes from the ledger when a pass was last complete: before this
// process started, or by another relay.
func (s *server) readMarks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, marksEvery)
	defer cancel()
	marks, err := s.app.Store.Marks(ctx)
	if err != nil {
		s.log.Debug("marks not read", "err", err) // the next pass tells
		return
	}
	if marks.Completed > 0 {
		s.metrics.complete(time.Unix(marks.Completed, 0))
	}
}

// undelivered returns the counts for the metrics, which it reads now and then.
func (s *server) undelivered() (dead, deferred int) {
	s.countsMu.Lock()
	defer s.countsMu.Unlock()
	if time.Since(s.countsAt) > countsKeep {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s.countsAt = time.Now()
		if dead, deferred, err := s.app.Store.UndeliveredCounts(ctx); err == nil {
			s.dead, s.deferred = dead, deferred
		}
	}
	return s.dead, s.deferred
}
