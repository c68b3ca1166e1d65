// Package lambdahost is the relay as a Lambda function.
package lambdahost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambda/messages"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/emf"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/runner"
	"github.com/kong-cloudtrail/relay/internal/secret"
)

// RuntimeAPI is the variable that Lambda sets for a program that is its own runtime.
const RuntimeAPI = "AWS_LAMBDA_RUNTIME_API"

// fetchMost bounds reading the secrets while the function starts. Lambda gives the whole start
// ten seconds.
const fetchMost = 3 * time.Second

// host runs the relay as a Lambda function. Lambda gives it one event at a
// time and freezes the process in between, so nothing goes on after an answer;
// clients and their connections are kept for the next event.
type host struct {
	env    app.Env
	log    *slog.Logger
	onStop func(func()) (remove func() bool) // has a function called once the process is told to stop

	busyMu sync.Mutex
	busy   <-chan struct{} // closed once the event that came last has been answered

	mu       sync.Mutex // held while the fields below are opened, and while passes are made with them
	app      *app.App   // nil until it has been opened
	pipeline *pipeline.Pipeline
	urls     http.Handler
	// pollWanted is set if a request to the function's URL asked for a poll beside its ids,
	// or was signed and refused for its rate. polled is when the function last invoked itself
	// for such a poll.
	pollWanted bool
	polled     time.Time
	bound      bool // the ledger is known to belong to this Kong

	// Of the invocation under way.
	scheduler     *announce.Scheduler
	runner        *runner.Runner
	resultMu      sync.Mutex
	tailNotBefore time.Time // the earliest time for the next tail of a log without order

	oldestPending atomic.Int64 // timestamp of the oldest new entry without an outcome, 0 for none
	changes       emf.Changes
}

// Run hosts the relay until ctx ends, which is when the process is told to stop. A
// function that cannot work answers each event with the reason, where alarms see it.
func Run(ctx context.Context, env app.Env) {
	h := &host{env: env, log: app.NewLogger(config.Settings{LogFormat: "json"}, env.Stderr)}
	h.onStop = func(f func()) func() bool { return context.AfterFunc(ctx, f) }
	// Lambda gives a function more CPU while it starts than later.
	h.mu.Lock()
	if err := h.open(ctx); err != nil {
		h.log.Debug("not opened, the first event says why")
	} else {
		h.fetchSecrets(ctx)
	}
	h.mu.Unlock()
	// What the runtime library logs is in the answer as well, so it is logged at debug only.
	slog.SetDefault(h.log)
	slog.SetLogLoggerLevel(slog.LevelDebug)
	// StartWithOptions never returns, and ends the process if the runtime API is gone.
	// Lambda sends SIGTERM only to a function that asks for it.
	go lambda.StartWithOptions(h, lambda.WithEnableSIGTERM())
	<-ctx.Done()
	h.busyMu.Lock()
	busy := h.busy
	h.busyMu.Unlock()
	if busy != nil {
		<-busy
	}
	if h.mu.TryLock() && h.app != nil {
		if err := h.app.Close(); err != nil {
			h.log.Warn("not everything closed", "err", err)
		}
	}
}

// open reads the settings and wires the relay, unless that is done. If it fails, the next
// event tries again. h.mu is held.
func (h *host) open(ctx context.Context) error {
	if h.app != nil {
		return nil
	}
	s, err := config.Load(config.NeedPass, nil, h.env.Getenv, os.ReadFile)
	if err != nil {
		return err
	}
	s.Warnings = append(s.Warnings, config.UnknownVariables(os.Environ())...)
	if s.LedgerFile != "" {
		s.Warn("the ledger is a file: a function loses its files, and what it has delivered is delivered again; use Redis")
	}
	log := h.env.Logger(s)
	a, err := app.Open(ctx, s, log, h.env.Stdout, config.NeedPass)
	if err != nil {
		return err
	}
	h.log, h.app = log, a
	h.pipeline = a.Pipeline(pipeline.Observer{
		Seen:          func(entries []audit.Entry) { h.scheduler.Seen(entries) },
		OldestPending: h.oldestPending.Store,
		Changed:       h.changes.Changed, LateRows: h.changes.Late,
	}, a.Lease(func() { h.runner.RequestRerun() }))
	h.urls = h.urlHandler()
	return nil
}

// fetchSecrets reads the secrets that every pass needs, at the same time rather than one after
// the other in the first pass. A secret that cannot be read is read again where it is needed,
// and the error is reported there.
func (h *host) fetchSecrets(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fetchMost)
	defer cancel()
	var reading sync.WaitGroup
	for _, secret := range []secret.Secret{h.app.Settings.KongToken, h.app.Settings.RedisPassword} {
		reading.Go(func() { _, _ = secret.Reveal(ctx) })
	}
	reading.Wait()
}

// Invoke implements [lambda.Handler].
func (h *host) Invoke(ctx context.Context, payload []byte) (answer []byte, err error) {
	h.busyMu.Lock()
	h.busy = ctx.Done() // the library ends the context when it has sent the answer
	h.busyMu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer h.onStop(cancel)()
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("panic", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			panic(p) // the library reports it and ends the process
		}
	}()
	log := h.log
	if c, ok := lambdacontext.FromContext(ctx); ok {
		log = log.With("invocation", c.AwsRequestID)
	}
	event, err := parseEvent(payload)
	if err == nil {
		h.mu.Lock()
		err = h.open(ctx)
		h.mu.Unlock()
	}
	switch {
	case err != nil:
	case event.url != nil:
		return json.Marshal(h.serveURL(ctx, event.url))
	default:
		var r Result
		if r, err = h.work(ctx, log, event); err == nil {
			return json.Marshal(r)
		}
	}
	return nil, h.failure(log, err)
}

// failure logs an error with its hint, and returns it in the form in which Lambda shows
// it. The invocation counts as failed: alarms see it, and Lambda repeats an asynchronous one.
func (h *host) failure(log *slog.Logger, err error) error {
	_, wrong := errors.AsType[*config.Error](err)
	_, unknown := errors.AsType[*eventError](err)
	out := messages.InvokeResponse_Error{Message: err.Error(), Type: "PassFailed"}
	err = app.Explain(err)
	if hint := audit.Hint(err); hint != "" {
		out.Message += ". What to do: " + hint
	}
	switch {
	case wrong, audit.NeedsPerson(err):
		out.Type = "SettingsError"
	case unknown:
		out.Type = "UnknownEvent"
	}
	log.Error("invocation failed", app.ErrorAttrs(err)...)
	return out
}
