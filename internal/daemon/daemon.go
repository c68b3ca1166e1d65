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

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

const (
	retryFirst = 2 * time.Second // after a pass that failed
	retryLast  = 5 * time.Minute
	heldRetry  = 500 * time.Millisecond // after a pass that another relay was making
	stopWithin = 15 * time.Second
	sweepEvery = 5 * time.Second
	countsKeep = 10 * time.Second // how long counts of undelivered entries are shown before they are read again
)

// server is the daemon: one goroutine makes the passes, the others only ask for them.
type server struct {
	app     *app.App
	log     *slog.Logger
	watch   *app.Watch
	metrics *metrics
	passes  *pipeline.Pipeline
	ready   readiness
	opts    Options

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
	s.watch = a.NewWatch(a.Settings.Debounce, func(n int) { s.metrics.missing.Add(float64(n)) })
	s.metrics = newMetrics(s.watch.Bell, s.undelivered)
	s.passes = a.Pipeline(pipeline.Observer{
		Stage: func(stage string, took time.Duration) {
			s.metrics.stages.WithLabelValues(stage).Observe(took.Seconds())
		},
		Seen:    s.watch.Bell.Show,
		Waiting: s.metrics.waiting,
		Delivered: func(entries []audit.Entry) {
			s.metrics.delivered(entries)
			for _, ago := range s.watch.Bell.Delivered(entries) {
				s.metrics.answer.Observe(ago.Seconds())
			}
			if o.Delivered != nil {
				o.Delivered(entries)
			}
		},
	})
	s.watch.Bell.Own = s.passes.Own
	return s
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
	group.Go(func() error { return s.loop(ctx) })
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

// loop makes passes: a reconcile at once and on the schedule, a tail whenever the
// bell asks for one. A pass that failed is made again soon, not after an hour.
func (s *server) loop(ctx context.Context) error {
	set := s.app.Settings
	var (
		reconcileAt = time.Now()
		retryAfter  = retryFirst
		tailAt      time.Time // no tail before this
		waiting     standby
	)
	if err := s.bindOrWait(ctx); err != nil {
		return err
	}
	s.readMarks(ctx)
	s.watch.LoadAnnounced(ctx)
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		wait := time.Until(reconcileAt)
		if d := s.watch.Bell.Until(); d >= 0 {
			wait = min(wait, max(d, time.Until(tailAt)))
		}
		if waiting.kind != "" {
			wait = min(wait, time.Until(waiting.at))
		}
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-s.watch.Bell.Wake:
			timer.Stop()
			continue
		case <-sweep.C:
			timer.Stop()
			s.watch.Sweep(ctx)
			s.readMarks(ctx)
			continue
		case <-timer.C:
		}
		kind := pipeline.Tail
		switch {
		case time.Until(reconcileAt) <= 0:
			kind = pipeline.Reconcile
		case waiting.kind != "" && time.Until(waiting.at) <= 0:
			if left := s.leaseLeft(ctx); left > 0 {
				waiting.at = time.Now().Add(max(left, heldRetry))
				continue
			}
			kind = waiting.kind
		case time.Until(tailAt) > 0 || !s.watch.Bell.Due():
			continue
		}
		begin := time.Now()
		sum, err := s.pass(ctx, kind)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, audit.ErrLeaseHeld):
			// The holder was left word. What it has seen is struck off the list.
			s.watch.LoadAnnounced(ctx)
			if kind == pipeline.Reconcile {
				reconcileAt = time.Now().Add(set.Schedule)
			} else {
				tailAt = time.Now().Add(heldRetry)
			}
			waiting.add(kind, s.leaseLeft(ctx))
		case err != nil:
			waiting.kind = ""
			reconcileAt = time.Now().Add(min(retryAfter, set.Schedule))
			tailAt = reconcileAt
			retryAfter = min(retryAfter*2, retryLast)
		default:
			retryAfter, tailAt = retryFirst, time.Time{}
			waiting.done(kind)
			if kind == pipeline.Reconcile {
				reconcileAt = begin.Add(set.Schedule)
			}
			if sum.Order == pipeline.Unordered && kind == pipeline.Tail {
				// Each look reads the whole log: at most a tenth of the time goes into that.
				tailAt = time.Now().Add(9 * time.Since(begin))
			}
		}
		s.watch.Sweep(ctx)
	}
}

// bindOrWait ties the ledger to this Kong; a ledger that is down is waited for.
func (s *server) bindOrWait(ctx context.Context) error {
	for wait := retryFirst; ; wait = min(wait*2, time.Minute) {
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

func (s *server) pass(ctx context.Context, kind pipeline.Kind) (pipeline.Summary, error) {
	s.metrics.lease.Set(1)
	defer s.metrics.lease.Set(0)
	sum, err := s.passes.Run(ctx, pipeline.Request{Kind: kind, TailWanted: s.watch.Bell.Wait, Word: s.watch.LoadAnnounced})
	if sum.Word {
		s.watch.Bell.Ring(nil, time.Now()) // for the relay that left it
	}
	if errors.Is(err, audit.ErrLeaseHeld) {
		s.ready.set(nil)
		s.metrics.standby()
		s.log.Debug("another relay makes the pass")
		return sum, err
	}
	if ctx.Err() != nil {
		return sum, err
	}
	s.metrics.pass(sum, err)
	s.ready.set(err)
	log := s.log.With("kind", string(sum.Kind), "full", sum.Full, "order", sum.Order, "pages", sum.Pages, "read", sum.Read, "new", sum.New,
		"delivered", sum.Delivered, "failed", sum.Failed, "dead", sum.Dead, "deferred", sum.Deferred, "seconds", sum.Seconds)
	switch {
	case err != nil:
		log.Error("pass failed, trying again soon", app.ErrorAttrs(app.Explain(err))...)
	case sum.New > 0 || kind == pipeline.Reconcile:
		log.Info("pass complete")
	default:
		log.Debug("pass complete")
	}
	return sum, err
}

// readMarks takes from the ledger when a pass was last complete: before this
// process started, or by another relay.
func (s *server) readMarks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sweepEvery)
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
