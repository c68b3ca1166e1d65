package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// checkWithin bounds each of the checks.
const checkWithin = 20 * time.Second

func (e *env) checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "try every connection and permission, and say what to do about each that fails",
		Action: func(ctx context.Context, c *cli.Command) (err error) {
			s, err := e.settings(c, needKong|needLedger|needDestination)
			if err != nil {
				return err
			}
			a, err := open(ctx, s, newLogger(s, e.stderr), e.stdout)
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
	try := func(what string, f func(ctx context.Context) (string, error)) {
		ctx, cancel := context.WithTimeout(ctx, checkWithin)
		defer cancel()
		said, err := f(ctx)
		if err == nil {
			fmt.Fprintf(w, "ok      %-12s %s\n", what, said)
			return
		}
		ok = false
		fmt.Fprintf(w, "FAILED  %-12s %v\n", what, err)
		var settings *audit.SettingsError
		if errors.As(err, &settings) {
			fmt.Fprintf(w, "        %-12s What to do: %s.\n", "", strings.TrimSuffix(settings.Hint, "."))
		}
	}
	try("kong", func(ctx context.Context) (string, error) {
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
	try("ledger", func(ctx context.Context) (string, error) {
		if err := a.store.Ping(ctx); err != nil {
			return "", err
		}
		said := "answers"
		if c, has := a.store.(interface {
			Check(ctx context.Context) ([]string, error)
		}); has {
			warnings, err := c.Check(ctx)
			if err != nil {
				return "", err
			}
			if len(warnings) > 0 {
				said += "; " + strings.Join(warnings, "; ")
			}
		}
		if err := a.bind(ctx); err != nil {
			return "", err
		}
		return said + ", and is this Kong's", nil
	})
	try("destination", func(ctx context.Context) (string, error) {
		return string(a.settings.Destination) + " accepts puts", a.sink.Check(ctx)
	})
	return ok
}
