package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/opsclient"
)

// open reads the settings and opens what a command needs. The caller closes it.
func (e *env) open(ctx context.Context, c *cli.Command, n config.Need) (*app.App, error) {
	s, err := e.settings(c, n)
	if err != nil {
		return nil, err
	}
	handlePipe(s)
	return app.Open(ctx, s, e.Logger(s), e.Stdout, n)
}

// sayStop has the log say that the program was told to stop, as it may take a while.
// The returned function ends that.
func sayStop(ctx context.Context, log *slog.Logger) (ended func() bool) {
	return context.AfterFunc(ctx, func() { log.Info("told to stop, what is in flight ends first; a second Ctrl-C ends at once") })
}

// handlePipe makes a write to standard output fail once nothing reads the events
// that go there, which would otherwise end the process without a word.
func handlePipe(s config.Settings) {
	if s.EventsToStdout() {
		signal.Ignore(syscall.SIGPIPE)
	}
}

// out returns where a command prints that delivers events: standard output carries
// nothing else if they go there.
func (e *env) out(s config.Settings) io.Writer {
	if s.EventsToStdout() {
		return e.Stderr
	}
	return e.Stdout
}

// reopenOnHangup opens the destination's file again at each SIGHUP, until the
// returned function is called.
func (e *env) reopenOnHangup(a *app.App) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-e.hangup:
			}
			if err := a.Reopen(); err != nil {
				a.Log.Warn("destination not opened again, the next put tries it", app.ErrorAttrs(err)...)
			}
		}
	})
	return func() { close(done); running.Wait() }
}

// withLedger opens the ledger and what else a command needs that works without Kong, and
// closes it after f.
func (e *env) withLedger(ctx context.Context, c *cli.Command, n config.Need, f func(ctx context.Context, a *app.App) error) (err error) {
	s, err := e.settings(c, n|config.NeedDestination) // the ledger's keys name the destination
	if err != nil {
		return err
	}
	handlePipe(s)
	a, err := app.Open(ctx, s, e.Logger(s), e.Stdout, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return f(ctx, a)
}

// withLedgerOrRelay calls here as withLedger does, or there if the ledger is a file that a
// relay of this machine has open.
func (e *env) withLedgerOrRelay(ctx context.Context, c *cli.Command, n config.Need,
	here func(ctx context.Context, a *app.App) error, there func(ctx context.Context, relay *opsclient.Client) error,
) error {
	err := e.withLedger(ctx, c, n, here)
	if !errors.Is(err, audit.ErrLedgerInUse) {
		return err
	}
	relay, err := e.relayWithLedger(c, err)
	if err != nil {
		return err
	}
	return there(ctx, relay)
}

// ledgerView is what commands read of a ledger: the ledger itself, or the relay that
// has its file open.
type ledgerView interface {
	UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error]
	UndeliveredEntry(ctx context.Context, id string) (u audit.Undelivered, found bool, err error)
	Outages(ctx context.Context, since time.Time) ([]audit.Outage, error)
}

// reading opens what a command needs that only reads the ledger.
func (e *env) reading(ctx context.Context, c *cli.Command, f func(ctx context.Context, l ledgerView) error) error {
	return e.withLedgerOrRelay(ctx, c, config.NeedLedger,
		func(ctx context.Context, a *app.App) error { return a.ExplainLedger(f(ctx, a.Store)) },
		func(ctx context.Context, relay *opsclient.Client) error { return f(ctx, relay) })
}

// relayWithLedger returns the relay of this machine that has the ledger's file open,
// or the error of opening it if none can be asked.
func (e *env) relayWithLedger(c *cli.Command, inUse error) (*opsclient.Client, error) {
	s, err := e.settings(c, config.NeedLedger)
	if err != nil || s.OpsListen == "" {
		return nil, inUse
	}
	relay, err := opsclient.New(s.OpsListen)
	if err == nil {
		err = relay.Unlock(s.LedgerFile)
	}
	if err != nil {
		return nil, audit.NewSettingsError(fmt.Errorf("%w; %w", inUse, err), "run it as the user of the relay that has the ledger, or stop that relay")
	}
	return relay, nil
}
