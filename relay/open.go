package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"sync"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/opsclient"
)

// with opens what a command needs, calls f, and closes it.
func (e *env) with(ctx context.Context, c *cli.Command, n config.Need, f func(a *app.App) error) (err error) {
	if e.serving != nil {
		return f(e.serving.app)
	}
	needed := n
	if n&config.NeedLedger != 0 {
		needed |= config.NeedDestination // the ledger's keys name it
	}
	s, err := e.settings(c, needed)
	if err != nil {
		return err
	}
	handlePipe(s)
	a, err := app.Open(ctx, s, e.Logger(s), e.Stdout, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return f(a)
}

// sayStop logs that the program was told to stop once ctx ends: stopping may take a while. The
// returned function cancels this.
func sayStop(ctx context.Context, log *slog.Logger) (ended func() bool) {
	return context.AfterFunc(ctx, func() { log.Info("told to stop, what is in flight ends first; a second Ctrl-C ends at once") })
}

// handlePipe makes a write to standard output fail once nothing reads the events that go
// there. Otherwise SIGPIPE would end the process without a message.
func handlePipe(s config.Settings) {
	if s.EventsToStdout() {
		signal.Ignore(syscall.SIGPIPE)
	}
}

// out returns where a command that delivers events prints. If the events go to standard
// output, nothing else does. For a command that is run for another process, the events go to
// this process's standard output and the command's to that of the other one.
func (e *env) out(s config.Settings) io.Writer {
	if s.EventsToStdout() && e.serving == nil {
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

// serving is the relay that serves, and runs commands for other processes because it has the
// ledger's file open.
type serving struct {
	app       *app.App
	verifying sync.Mutex // held while a verification is made
}

// run runs the command of another process, and returns its exit code.
func (s *serving) run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	e := &env{Env: app.Env{Getenv: func(string) string { return "" }, Stdout: stdout, Stderr: stderr}, args: args, serving: s}
	return e.run(ctx, []*cli.Command{e.deadCommand(), e.outagesCommand(), e.verifyCommand()})
}

// withLedger is like with. But if the ledger is a file that a relay on this machine has open,
// that relay runs the whole command.
func (e *env) withLedger(ctx context.Context, c *cli.Command, n config.Need, f func(a *app.App) error) error {
	err := e.with(ctx, c, n, f)
	if errors.Is(err, audit.ErrLedgerInUse) {
		return e.runBeside(ctx, c, err)
	}
	return err
}

// runBeside has the relay that has the ledger's file open run this command. If no relay can
// be asked, it returns inUse, the error of opening the ledger.
func (e *env) runBeside(ctx context.Context, c *cli.Command, inUse error) error {
	s, err := e.settings(c, config.NeedLedger)
	if err != nil || s.OpsListen == "" {
		return inUse
	}
	relay, err := opsclient.New(s.OpsListen)
	if err == nil {
		err = relay.Unlock(s.LedgerFile)
	}
	if err != nil {
		return audit.NewSettingsError(fmt.Errorf("%w; %w", inUse, err), "run it as the user of the relay that has the ledger, or stop that relay")
	}
	code, err := relay.Run(ctx, e.args, e.Stdout, e.Stderr)
	if err != nil || code == exitOK {
		return err
	}
	return exitCode(code)
}
