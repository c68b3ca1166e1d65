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
		Name:   "check",
		Usage:  "try every connection and permission, and say what to do about each that fails",
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
	for _, check := range a.Checks() {
		if !e.try(ctx, check) {
			err = exitCode(exitFailed)
		}
	}
	return err
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
