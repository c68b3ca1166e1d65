package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/opsclient"
)

// serving is the relay that runs a command for another process, because it has the ledger's
// file open.
type serving struct {
	app       *app.App
	verifying sync.Mutex // held while a verification is made
}

// run runs the command of another process, and returns its exit code.
func (s *serving) run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	e := &env{Env: app.Env{Getenv: func(string) string { return "" }, Stdout: stdout, Stderr: stderr}, args: args, serving: s}
	return e.run(ctx, []*cli.Command{e.deadCommand(), e.outagesCommand(), e.verifyCommand()})
}

// withLedger opens what a command needs, calls f, and closes it. If the ledger is a file that
// a relay of this machine has open, that relay runs the whole command instead.
func (e *env) withLedger(ctx context.Context, c *cli.Command, n config.Need, f func(a *app.App) error) (err error) {
	a, err := e.open(ctx, c, n)
	if errors.Is(err, audit.ErrLedgerInUse) {
		return e.runBeside(ctx, c, err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return f(a)
}

// runBeside has the relay run this command that has the ledger's file open. It returns inUse,
// the error of opening the ledger, if no relay can be asked.
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
