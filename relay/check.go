package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
)

func (e *env) checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "try every connection and permission, and say what to do about each that fails",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "trigger", Usage: "instead, send a signed trigger to the relay that serves at this `address`, and look for the plugin in Kong"},
		},
		Action: e.check,
	}
}

// check tries everything, whatever fails, and prints a line for each.
func (e *env) check(ctx context.Context, c *cli.Command) (err error) {
	if c.IsSet("trigger") {
		return e.checkTrigger(ctx, c)
	}
	a, err := e.open(ctx, c, config.NeedKong|config.NeedLedger|config.NeedDestination)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	for _, check := range a.Checks() {
		if !e.try(ctx, check) {
			err = exitCode(exitFailed)
		}
	}
	return err
}

// checkTrigger tries the way from Kong to the relay, and prints what is worth knowing
// of Kong's plugins, which is never a failure.
func (e *env) checkTrigger(ctx context.Context, c *cli.Command) error {
	s, err := e.settings(c, 0)
	if err != nil {
		return err
	}
	accepted := e.try(ctx, app.CheckTrigger(s, c.String("trigger")))
	within, cancel := context.WithTimeout(ctx, app.CheckWithin)
	defer cancel()
	fmt.Fprintf(e.Stdout, "hint    %-12s %s\n", "plugin", app.PluginHint(within, s, e.Logger(s)))
	if !accepted {
		return exitCode(exitFailed)
	}
	return nil
}

func (e *env) try(ctx context.Context, check app.Check) bool {
	ctx, cancel := context.WithTimeout(ctx, check.Within)
	defer cancel()
	found, err := check.Run(ctx)
	if err == nil {
		fmt.Fprintf(e.Stdout, "ok      %-12s %s\n", check.Name, found)
		return true
	}
	fmt.Fprintf(e.Stdout, "FAILED  %-12s %v\n", check.Name, err)
	fmt.Fprintf(e.Stdout, "        %-12s What to do: %s.\n", "", strings.TrimSuffix(cmp.Or(audit.Hint(err), check.Hint), "."))
	return false
}
