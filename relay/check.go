package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/lake"
)

// checkWithin bounds each of the checks.
const checkWithin = 20 * time.Second

// What to do where an error does not say it by itself: mostly the network.
const (
	kongHint        = "KONG_ADMIN_API must be the Admin API itself (port 8001 or 8444), and nothing may stand between: try curl from here"
	destinationHint = "this machine must reach the service's endpoint in that Region over HTTPS (CloudTrail Lake has no VPC endpoint); " +
		"AWS_ENDPOINT_URL and its kind must be right where they are set"
)

func (e *env) checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "try every connection and permission, and say what to do about each that fails",
		Action: func(ctx context.Context, c *cli.Command) (err error) {
			s, err := e.settings(c, needKong|needLedger|needDestination)
			if err != nil {
				return err
			}
			a, err := open(ctx, s, e.logger(s), e.stdout)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.close()) }()
			if !a.check(ctx, e.stdout) {
				return exitCode(exitFailed)
			}
			return nil
		},
	}
}

// check tries everything, whatever fails, and prints a line for each.
func (a *app) check(ctx context.Context, w io.Writer) bool {
	ok := true
	try := func(what, hint string, f func(ctx context.Context) (string, error)) {
		ctx, cancel := context.WithTimeout(ctx, checkWithin)
		defer cancel()
		said, err := f(ctx)
		if err == nil {
			fmt.Fprintf(w, "ok      %-12s %s\n", what, said)
			return
		}
		ok = false
		fmt.Fprintf(w, "FAILED  %-12s %v\n", what, err)
		hint = cmp.Or(audit.Hint(err), hint)
		fmt.Fprintf(w, "        %-12s What to do: %s.\n", "", strings.TrimSuffix(hint, "."))
	}
	try("kong", kongHint, func(ctx context.Context) (string, error) {
		p, err := a.kong.Page(ctx, audit.Query{Size: 1})
		if err != nil {
			return "", err
		}
		v := a.kong.Version(ctx)
		if v == "" {
			v = "of unknown version"
		}
		said := fmt.Sprintf("audit log of Kong %s can be read", v)
		if !p.Date.IsZero() {
			if off := time.Since(p.Date).Round(time.Second); off > 5*time.Second || off < -5*time.Second {
				said += fmt.Sprintf("; its clock differs from this machine's by %s", off)
			}
		}
		return said, nil
	})
	try("ledger", "look into the log of Redis, and at REDIS_HOST", func(ctx context.Context) (string, error) {
		if err := a.store.Ping(ctx); err != nil {
			return "", a.reachable(err)
		}
		said := "answers"
		warnings, err := a.checkStore(ctx)
		if err != nil {
			return "", err
		}
		if len(warnings) > 0 {
			said += "; " + strings.Join(warnings, "; ")
		}
		if err := a.bindStore(ctx); err != nil {
			return "", err
		}
		return said + ", and is this Kong's", nil
	})
	try("destination", destinationHint, func(ctx context.Context) (string, error) {
		said := string(a.settings.Destination) + " accepts puts"
		if a.settings.Destination == ToCloudTrail {
			said += "; whether it takes this account and source shows with the first event"
		}
		return said, a.sink.Check(ctx)
	})
	if a.settings.EventDataStore != "" && a.settings.Destination == ToCloudTrail {
		try("queries", destinationHint, func(ctx context.Context) (string, error) {
			l, err := a.openLake(ctx)
			if err != nil {
				return "", err
			}
			for _, err := range l.Events(ctx, lake.MinTime, lake.MinTime+1) {
				if err != nil {
					return "", err
				}
			}
			return "relay verify can ask the event data store", nil
		})
	}
	return ok
}
