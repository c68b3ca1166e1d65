package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/health"
	"github.com/kong-cloudtrail/relay/internal/ledger"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// Report is called with the outcome of each call to a dependency, from several goroutines.
// It must not block.
type Report func(d health.Dependency, operation string, err error)

// RecordOperation is the name of the operation that records outcomes. Its failure counts as
// over after a complete pass as well, since such a pass may have had nothing to record.
const RecordOperation = "record"

// A call that takes slowTimes as long as is usual, but within slowLeast and slowMost, is
// reported as unanswered while it goes on.
const (
	slowLeast = 2500 * time.Millisecond
	slowMost  = 30 * time.Second
	slowTimes = 3
)

// pace holds how long calls to each dependency usually take. That differs widely: a Kong
// with a large audit table takes seconds for a page, and works.
type pace struct {
	mu    sync.Mutex
	usual map[health.Dependency]time.Duration
}

// answered notes how long a call took that was answered. A longer call raises the usual time
// at once; shorter ones lower it slowly, over some dozens of calls.
func (p *pace) answered(d health.Dependency, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if was := p.usual[d]; took > was {
		p.usual[d] = (was + took) / 2
	} else {
		p.usual[d] = was - (was-took)/10
	}
}

// slow returns how long a call may take before it is reported as unanswered.
func (p *pace) slow(d health.Dependency) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(max(slowTimes*p.usual[d], slowLeast), slowMost).Round(slowLeast / 5)
}

// Watch makes every call to Kong, the ledger and the destination report its outcome. What
// counts is which dependency was called, whatever the error says. If entries of a put have to
// be put again, Watch calls retried with the destination's code. It must be called once,
// before a is used.
func (a *App) Watch(report Report, retried func(code string)) {
	a.report, a.pace = report, &pace{usual: map[health.Dependency]time.Duration{}}
	a.source = watchedSource{a.source, a}
	a.Store = watchedStore{a.Store, a}
	d := &a.destination
	d.Destination = watchedDestination{d.Destination, a, retried}
	if d.urgent != nil {
		d.urgent = watchedDestination{d.urgent, a, retried}
	}
}

// attempted reports the outcome of one attempt of a request to Kong.
func (a *App) attempted(err error) {
	if a.report != nil {
		a.report(health.Kong, "read", defaultHint(err, kongHint))
	}
}

// begin notes that a call begins. The function that it returns takes the call's error and
// reports it. Until then a call that is slow is reported as unanswered.
func (a *App) begin(d health.Dependency, operation string) func(err error) {
	var mu sync.Mutex
	began, ended, slow := time.Now(), false, a.pace.slow(d)
	timer := time.AfterFunc(slow, func() {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			a.report(d, operation, audit.WithHint(&health.UnansweredError{Since: began, For: slow}, a.slowHint(d)))
		}
	})
	return func(err error) {
		timer.Stop()
		if err == nil {
			a.pace.answered(d, time.Since(began))
		}
		mu.Lock()
		defer mu.Unlock()
		ended = true
		a.report(d, operation, err)
	}
}

func (a *App) slowHint(d health.Dependency) string {
	hint := map[health.Dependency]string{
		health.Kong:        "Kong or its database is slow or down: look at their load, and at what is between; a page takes seconds where the audit table is large and has no index",
		health.Ledger:      "look at the load of the ledger's server (SLOWLOG, INFO) and at the network to it",
		health.Destination: "look at what is between the relay and the destination's endpoint: something takes connections and does not answer",
	}[d]
	if d == health.Ledger && a.Settings.RedisTLS {
		hint += "; leave out --redis-tls and --redis-ca if REDIS_HOST speaks no TLS"
	}
	return hint
}

type watchedSource struct {
	walk.Source
	app *App
}

func (s watchedSource) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	done := s.app.begin(health.Kong, "read")
	p, err := s.Source.Page(ctx, q)
	switch {
	case errors.Is(err, audit.ErrPageTooLarge), errors.Is(err, audit.ErrBadOffset), errors.Is(err, audit.ErrUnsupportedQuery):
		done(nil) // Kong has answered, and another query follows
	default:
		done(defaultHint(err, kongHint))
	}
	return p, err
}

type watchedDestination struct {
	delivery.Destination
	app     *App
	retried func(code string)
}

func (d watchedDestination) Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	done := d.app.begin(health.Destination, "put")
	verdicts, err := d.Destination.Put(ctx, entries)
	done(defaultHint(putFailure(verdicts, err), d.app.kind.hint))
	again := slices.IndexFunc(verdicts, func(v audit.Verdict) bool { return v.Status == audit.Retryable })
	if again < 0 || ctx.Err() != nil {
		return verdicts, err
	}
	code := verdicts[again].Code
	switch {
	case code != "" || err == nil:
	case audit.NeedsPerson(err):
		code = "settings"
	default:
		code = "unavailable"
	}
	d.retried(code)
	return verdicts, err
}

// putFailure returns why a put delivered nothing. It returns nil if the destination works,
// that is, if it accepted an entry or rejected one permanently.
func putFailure(verdicts []audit.Verdict, err error) error {
	for _, v := range verdicts {
		if v.Status != audit.Retryable {
			return nil
		}
	}
	if err == nil && len(verdicts) > 0 {
		v := verdicts[0]
		err = fmt.Errorf("%s: %s", cmp.Or(v.Code, "no answer for the entry"), v.Reason)
		if v.Code != "" {
			err = audit.WithHint(err, cmp.Or(awscall.CodeHint(v.Code), codeHint))
		}
	}
	return err
}

// defaultHint adds a hint to an error that has none.
func defaultHint(err error, hint string) error {
	if err == nil || audit.Hint(err) != "" {
		return err
	}
	return audit.WithHint(err, hint)
}

// watchedStore reports the outcome of those calls that show whether the ledger works.
type watchedStore struct {
	Store
	app *App
}

// call is like begin, for a call to the ledger. The function that it returns is to be
// deferred, with a pointer to the error that the call returns.
func (s watchedStore) call(operation string) func(returned *error) {
	done := s.app.begin(health.Ledger, operation)
	return func(returned *error) {
		err := *returned
		switch {
		case errors.Is(err, audit.ErrLeaseHeld), errors.Is(err, audit.ErrLeaseLost), errors.Is(err, audit.ErrLedgerMismatch), audit.LedgerForgot(err), audit.IsUnreadable(err):
			err = nil // the ledger answered
		}
		done(defaultHint(s.app.ExplainLedger(err), ledgerHint))
	}
}

func (s watchedStore) Lookup(ctx context.Context, entries []audit.Entry) (outcomes []audit.Outcome, err error) {
	defer s.call("lookup")(&err) // a script, which can fail although marks can be read
	return s.Store.Lookup(ctx, entries)
}

func (s watchedStore) Record(ctx context.Context, records []audit.Record) (err error) {
	defer s.call(RecordOperation)(&err) // with a full disk the lease may be stored and records not
	return s.Store.Record(ctx, records)
}

func (s watchedStore) Marks(ctx context.Context) (m audit.Marks, err error) {
	defer s.call("read")(&err)
	return s.Store.Marks(ctx)
}

func (s watchedStore) Announce(ctx context.Context, ids []string, at time.Time) (err error) {
	defer s.call("write")(&err)
	return s.Store.Announce(ctx, ids, at)
}

func (s watchedStore) Announced(ctx context.Context) (list []audit.Announcement, err error) {
	defer s.call("read")(&err)
	return s.Store.Announced(ctx)
}

func (s watchedStore) Unannounce(ctx context.Context, ids []string) (err error) {
	defer s.call("write")(&err)
	return s.Store.Unannounce(ctx, ids)
}

func (s watchedStore) UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error] {
	return func(yield func(audit.Undelivered, error) bool) {
		for u, err := range s.Store.UndeliveredEntries(ctx) {
			if err != nil {
				s.call("read")(&err)
			}
			if !yield(u, err) {
				return
			}
		}
	}
}

func (s watchedStore) Begin(ctx context.Context) (err error) {
	defer s.call("begin")(&err) // usually it only reads, so its success says nothing about writes
	return s.Store.Begin(ctx)
}

func (s watchedStore) Acquire(ctx context.Context, requestRerun bool) (l ledger.Lease, err error) {
	defer s.call("write")(&err)
	if l, err = s.Store.Acquire(ctx, requestRerun); err != nil {
		return l, err
	}
	return watchedLease{l, s}, nil
}

type watchedLease struct {
	ledger.Lease
	store watchedStore
}

func (l watchedLease) SetMarks(ctx context.Context, m audit.Marks) (err error) {
	defer l.store.call("write")(&err)
	return l.Lease.SetMarks(ctx, m)
}

func (s watchedStore) BindKong(ctx context.Context, url string, adopt bool) (err error) {
	defer s.call("bind")(&err)
	return s.Store.BindKong(ctx, url, adopt)
}

// Probe makes a small call to a dependency, if it can be called.
func (a *App) Probe(ctx context.Context, d health.Dependency) error {
	switch d {
	case health.Kong:
		_, err := a.source.Page(ctx, audit.Query{Size: 1})
		return err
	case health.Ledger:
		return a.Store.Ping(ctx)
	case health.Destination:
		done := a.begin(d, "check")
		err := a.destination.check(ctx)
		done(defaultHint(err, a.kind.hint))
		return err
	case health.Triggers, health.Recording, health.Passes: // cannot be called
	}
	return nil
}
