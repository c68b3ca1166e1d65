package main

import (
	"context"
	"io"
	"log/slog"
	"os/signal"
	"sync"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/config"
)

// open reads the settings and opens what a command needs. The caller closes it.
func (e *env) open(ctx context.Context, c *cli.Command, n config.Need) (*app.App, error) {
	if e.serving != nil {
		return e.serving.app.Shared(), nil
	}
	needed := n
	if n&config.NeedLedger != 0 {
		needed |= config.NeedDestination // the ledger's keys name it
	}
	s, err := e.settings(c, needed)
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
// nothing else if they go there. Of a command that is run for another process, they go to
// this one's.
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
