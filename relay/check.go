package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
)

// checkWithin bounds each of the checks.
const checkWithin = 20 * time.Second

func (e *env) checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "try every connection and permission, and say what to do about each that fails",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "trigger", Usage: "also send a signed trigger to the relay that serves at this `address`, and look for the plugin in Kong"},
		},
		Action: e.check,
	}
}

// check tries everything, whatever fails, and prints a line for each.
func (e *env) check(ctx context.Context, c *cli.Command) (err error) {
	a, err := e.open(ctx, c, config.NeedKong|config.NeedLedger|config.NeedDestination)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	checks := a.Checks()
	if c.IsSet("trigger") {
		checks = append(checks, a.CheckTrigger(c.String("trigger")))
	}
	for _, check := range checks {
		if !e.try(ctx, check) {
			err = exitCode(exitFailed)
		}
	}
	if c.IsSet("trigger") {
		e.hint(ctx, a)
	}
	return err
}

// hint prints what is worth knowing of Kong's plugins. It is never a failure.
func (e *env) hint(ctx context.Context, a *app.App) {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	fmt.Fprintf(e.Stdout, "hint    %-12s %s\n", "plugin", a.PluginHint(ctx))
}

func (e *env) try(ctx context.Context, check app.Check) bool {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
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
