package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/opsclient"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/urfave/cli/v3"
)

// settingFlags returns a flag for each that the settings have.
func settingFlags() []cli.Flag {
	var flags []cli.Flag
	for _, f := range config.Flags() {
		usage := f.Help + " [$" + f.Env + "]"
		if f.IsSwitch() {
			flags = append(flags, &cli.BoolFlag{Name: f.Name, Usage: usage, Category: f.Group, HideDefault: true})
			continue
		}
		if f.Default != "" {
			usage += " (default " + f.Default + ")"
		}
		flags = append(flags, &cli.StringFlag{Name: f.Name, Usage: usage, Category: f.Group, HideDefault: true})
	}
	return flags
}

// flagValue returns a function that reads the flags of a command.
func flagValue(c *cli.Command) func(name string) (value string, set bool) {
	return func(name string) (string, bool) {
		if !c.IsSet(name) {
			return "", false
		}
		return fmt.Sprint(c.Value(name)), true
	}
}

// settings reads flags and variables of a command. A variable that only looks
// like a setting is often why another one is missing, so it is named in any case.
func (e *env) settings(c *cli.Command, n config.Need) (config.Settings, error) {
	s, err := config.Load(n, flagValue(c), e.Getenv, os.ReadFile)
	unknown := config.UnknownVariables(e.Environ)
	if err != nil {
		for _, w := range unknown {
			fmt.Fprintf(e.Stderr, "relay: warning: %s\n", w)
		}
		return s, err
	}
	s.Warnings = append(s.Warnings, unknown...)
	return s, nil
}

// open reads the settings and opens what a command needs. The caller closes it.
func (e *env) open(ctx context.Context, c *cli.Command, n config.Need) (*app.App, error) {
	s, err := e.settings(c, n)
	if err != nil {
		return nil, err
	}
	handlePipe(s)
	return app.Open(ctx, s, e.Logger(s), e.Stdout)
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

// withLedger opens what a command needs that works without Kong, and closes it after.
func (e *env) withLedger(n config.Need, f func(ctx context.Context, c *cli.Command, a *app.App) error) cli.ActionFunc {
	return func(ctx context.Context, c *cli.Command) (err error) {
		s, err := e.settings(c, n|config.NeedDestination) // the ledger's keys name the destination
		if err != nil {
			return err
		}
		handlePipe(s)
		a, err := app.OpenLedger(ctx, s, e.Logger(s), e.Stdout, n&config.NeedDestination != 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.Close()) }()
		return f(ctx, c, a)
	}
}

// ledgerView is what commands read of a ledger: the ledger itself, or the relay that
// has its file open.
type ledgerView interface {
	UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error]
	UndeliveredEntry(ctx context.Context, id string) (u audit.Undelivered, found bool, err error)
	Outages(ctx context.Context, since time.Time) ([]audit.Outage, error)
}

// reading opens what a command needs that only reads the ledger, also beside a relay
// whose ledger is a file.
func (e *env) reading(f func(ctx context.Context, c *cli.Command, l ledgerView) error) cli.ActionFunc {
	return func(ctx context.Context, c *cli.Command) error {
		err := e.withLedger(config.NeedLedger, func(ctx context.Context, c *cli.Command, a *app.App) error {
			return a.ExplainLedger(f(ctx, c, a.Store))
		})(ctx, c)
		if !errors.Is(err, audit.ErrLedgerInUse) {
			return err
		}
		relay, err := e.relayWithLedger(c, err)
		if err != nil {
			return err
		}
		return f(ctx, c, relay)
	}
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

// printJSON writes a value as a line of JSON.
func printJSON(w io.Writer, v any) error { return json.MarshalEncode(jsontext.NewEncoder(w), v) }
