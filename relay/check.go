package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

func (e *env) checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "try every connection and permission, and say what to do about each that fails",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print a line of JSON for each check"},
			&cli.StringFlag{Name: "trigger", Usage: "instead, send a signed trigger to the relay that serves at this `address`, and look for the plugin in Kong"},
		},
		Action: e.check,
	}
}

// check makes every check, even if one fails, and prints a line for each.
func (e *env) check(ctx context.Context, c *cli.Command) error {
	if c.IsSet("trigger") {
		return e.checkTrigger(ctx, c)
	}
	return e.with(ctx, c, config.NeedPass, func(a *app.App) (err error) {
		for _, check := range a.Checks() {
			if !e.try(ctx, c, check) {
				err = exitCode(exitFailed)
			}
		}
		return err
	})
}

// checkTrigger tries the way from Kong to the relay. It also prints a hint about Kong's
// plugins, which never makes the check fail.
func (e *env) checkTrigger(ctx context.Context, c *cli.Command) error {
	relay := strings.TrimSpace(c.String("trigger"))
	if err := trigger.CheckURL(relay); err != nil {
		return config.Usagef("--trigger is not the address of a relay: %w", err)
	}
	s, err := e.settings(c, 0)
	if err != nil {
		return err
	}
	accepted := e.try(ctx, c, app.CheckTrigger(s, relay))
	within, cancel := context.WithTimeout(ctx, app.CheckWithin)
	defer cancel()
	hint := app.PluginHint(within, s, e.Logger(s))
	if c.Bool("json") {
		_ = printJSON(e.Stdout, &checkOutcome{Check: "plugin", OK: true, Hint: hint}) // whoever reads it is gone
	} else {
		fmt.Fprintf(e.Stdout, "hint    %-12s %s\n", "plugin", hint)
	}
	if !accepted {
		return exitCode(exitFailed)
	}
	return nil
}

type checkOutcome struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Found string `json:"found,omitempty"`
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

func (e *env) try(ctx context.Context, c *cli.Command, check app.Check) bool {
	ctx, cancel := context.WithTimeout(ctx, check.Within)
	defer cancel()
	found, err := check.Run(ctx)
	o := checkOutcome{Check: check.Name, OK: err == nil, Found: found}
	if err != nil {
		o.Error, o.Hint = err.Error(), strings.TrimSuffix(cmp.Or(audit.Hint(err), check.Hint), ".")
	}
	switch {
	case c.Bool("json"):
		_ = printJSON(e.Stdout, &o) // whoever reads it is gone
	case o.OK:
		fmt.Fprintf(e.Stdout, "%s      %-12s %s\n", e.paint(e.Stdout, green, "ok"), o.Check, o.Found)
	default:
		fmt.Fprintf(e.Stdout, "%s  %-12s %s\n        %-12s What to do: %s.\n", e.paint(e.Stdout, red, "FAILED"), o.Check, o.Error, "", o.Hint)
	}
	return o.OK
}
