// Package daemon is the relay as a service: it takes triggers, makes passes on a
// schedule, and shows its status.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/emf"
	"github.com/kong-cloudtrail/relay/internal/health"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/runner"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

const (
	bindRetryFirst = 2 * time.Second // wait before a ledger that was unreachable at the start is tried again
	bindRetryLast  = 30 * time.Second
	stopWithin     = 15 * time.Second
	maxConnections = 256 // per listener; two of them leave room among 1,024 descriptors
)

type server struct {
	app       *app.App
	log       *slog.Logger
	scheduler *announce.Scheduler
	runner    *runner.Runner
	metrics   *metrics
	health    *health.Tracker
	opts      Options

	lastRead     atomic.Int64 // when Kong last gave a page, Unix seconds
	running      atomic.Int32 // passes under way
	ledgerForgot atomic.Bool  // the ledger was emptied or set back since the last pass
	recording    *recording
	freshness    health.Freshness
	endedPasses  latest[app.PassStatus] // that ended, except those that found nothing new
	tails        tails
	changed      latest[changedEntity]
	reading      sync.Mutex // held while a history is read, which is one at a time
	changes      emf.Changes
	ledger       ledgerCache
	warnings     atomic.Pointer[[]string] // about the settings of the ledger's server; nil: not known yet
	updates      atomic.Uint64            // grows when /status, page or metrics show something new; health counts its own
	template     *template.Template       // of the page
	policy       string                   // what the page may load
}

// Options of the daemon. All of them may be left out.
type Options struct {
	Version        string
	Stdout, Stderr io.Writer                   // for metrics; needed if the settings ask for them
	Delivered      func(entries []audit.Entry) // called with what was accepted and recorded
	Listening      func(triggers, ops string)  // called with the listeners' addresses; empty for one that is off
	// Command runs a command for another process, which needs the ledger's file, and
	// returns its exit code.
	Command func(ctx context.Context, args []string, stdout, stderr io.Writer) int
}

// Run listens and makes passes until ctx ends. It returns nil if ctx ended it.
func Run(ctx context.Context, a *app.App, o Options) error {
	return newServer(a, o).run(ctx)
}

func newServer(a *app.App, o Options) *server {
	s := &server{app: a, log: a.Log, opts: o, health: health.New(a.Log),
		recording: newRecording(a.Settings.Canary, time.Now())}
	s.template, s.policy = newPage()
	s.scheduler = announce.New(announce.Options{Debounce: a.Settings.Debounce, Schedule: a.Settings.Schedule})
	s.metrics = newMetrics(s)
	if a.Settings.Objects {
		for _, h := range []changes.History{changes.Exact, changes.Approximate, changes.Unavailable} {
			s.metrics.changes.WithLabelValues(string(h)) // a rate needs the zero
		}
	}
	a.Watch(s.report, s.metrics.retried)
	passes := a.Pipeline(pipeline.Observer{
		Stage: func(stage string, took time.Duration) {
			s.metrics.stages.WithLabelValues(stage).Observe(took.Seconds())
		},
		Seen: func(entries []audit.Entry) {
			s.scheduler.Seen(entries)
			s.recorded(entries)
		},
		OldestPending: s.metrics.oldestPending.Store,
		Delivered:     s.delivered,
		Progress:      app.LogProgress(a.Log),
		Changed: func(certainty string) {
			s.metrics.changes.WithLabelValues(certainty).Inc()
			s.changes.Changed(certainty)
		},
		LateRows: func(n int) {
			s.metrics.lateRows.Add(float64(n))
			s.changes.Late(n)
		},
	}, a.Lease(func() { s.runner.RequestRerun() }))
	s.runner = a.Runner(s.scheduler, passes, runner.Observer{
		Began:   func(audit.PassKind) { s.running.Add(1) },
		Ended:   s.ended,
		Missing: s.notRecorded,
	}, 0)
	return s
}

// delivered takes entries that were accepted and recorded.
func (s *server) delivered(entries []audit.Entry) {
	s.metrics.delivered(entries)
	s.health.Delivered(entries)
	s.noteChanged(entries)
	for _, ago := range s.scheduler.Delivered(time.Now(), entries) {
		s.metrics.answer.Observe(ago.Seconds())
	}
	if s.opts.Delivered != nil {
		s.opts.Delivered(entries)
	}
}

func (s *server) run(ctx context.Context) error {
	set := s.app.Settings
	names := app.NamesOf(&set)
	s.log.Info("relay starts", "version", s.opts.Version, "kong", names.Kong, "ledger", names.Ledger, "destination", names.Destination,
		"source", names.Source, "schedule", set.Schedule.String())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	listen := func(name, addr string, h http.Handler) (string, error) {
		if addr == "" {
			return "", nil
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err != nil {
			return "", audit.SettingsErrorf("stop what has that address, or choose another: --listen for triggers, --ops-listen for operations; off for none",
				"listening for %s: %w", name, err)
		}
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
			IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
		trigger.LimitConnections(srv, maxConnections)
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
		return l.Addr().String(), nil
	}
	key, closeCommands := s.openCommands()
	defer closeCommands()
	ops, err := listen("operations", set.OpsListen, s.opsHandler(key))
	if err != nil {
		return err
	}
	if ops != "" {
		s.log.Info("operations listener ready", "addr", ops)
	}
	group.Go(func() error { return s.passes(ctx) })
	group.Go(func() error { return s.followHealth(ctx) })
	triggers, err := listen("triggers", set.Listen, s.triggerHandler())
	if err != nil { // what runs by then is ended and waited for
		stop()
		_ = group.Wait() // says only that it was told to stop
		return err
	}
	if triggers != "" {
		s.log.Info("trigger listener ready", "addr", triggers)
	}
	if s.opts.Listening != nil {
		s.opts.Listening(triggers, ops)
	}
	err = group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil // told to stop
	}
	s.log.Info("stopped")
	return err
}

// passes makes passes until ctx ends: a reconcile at once and on the schedule, or a tail
// instead if another relay has recently made one; and a tail whenever a trigger asks.
func (s *server) passes(ctx context.Context) error {
	if err := s.bindOrWait(ctx); err != nil {
		return err
	}
	s.readMarks(ctx)
	s.scheduler.RequestReconcile(time.Now(), false)
	return s.runner.Run(ctx)
}

// bindOrWait ties the ledger to this Kong; a ledger that is down is waited for.
func (s *server) bindOrWait(ctx context.Context) error {
	for wait := bindRetryFirst; ; wait = min(wait*2, bindRetryLast) {
		err := s.app.Bind(ctx)
		if err == nil || errors.Is(err, audit.ErrLedgerMismatch) || errors.Is(err, audit.ErrAccountMismatch) || errors.Is(err, audit.ErrEvicting) {
			return err
		}
		s.metrics.failing.Inc()
		s.log.Debug("ledger not bound, trying again", "err", err) // its state says why
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (s *server) ended(p audit.PassKind, sum pipeline.Summary, err error) {
	s.running.Add(-1)
	defer s.updates.Add(1)
	log := s.log.With("kind", string(sum.Kind), "full", sum.Full, "order", sum.Order, "pages", sum.Pages, "read", sum.Read, "new", sum.New,
		"delivered", sum.Delivered, "failed", sum.Failed, "dead", sum.Dead, "deferred", sum.Deferred, "seconds", sum.Seconds)
	switch {
	case errors.Is(err, audit.ErrLeaseHeld):
		s.metrics.standby()
		s.health.Recovered(time.Now(), health.Ledger, app.RecordOperation)
		s.report(health.Passes, "pass", nil)
		log.Debug("another relay makes the pass")
		return
	case errors.Is(err, pipeline.ErrUnordered):
		log.Debug("tail waits for the reconcile under way")
		return
	case errors.Is(err, context.Canceled): // the relay was told to stop
		return
	}
	now := time.Now()
	s.metrics.pass(&sum, err)
	s.noteEnded(now, &sum, err)
	s.report(health.Passes, "pass", app.Explain(err))
	if err == nil && !sum.Beside {
		s.health.Recovered(now, health.Ledger, app.RecordOperation)
		s.health.Completed(now)
	}
	switch {
	case err != nil:
		log.Debug("pass failed", "err", err) // what fails says why
	case p == audit.Reconcile:
		log.Info("pass complete")
	case sum.New > 0:
		s.tails.add(sum)
		s.logTails(now)
		fallthrough
	default:
		log.Debug("pass complete")
	}
}
