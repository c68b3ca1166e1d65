//go:build !lambda.norpc

package demo

import (
	"context"
	"io"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/config"
)

// Commands returns the command that runs the demo. The build for Lambda has none: it leaves
// out this package but for its other Commands, and with it the emulators.
func Commands(version string, stdout, stderr io.Writer) []*cli.Command {
	return []*cli.Command{{
		Name:  "demo",
		Usage: "show the whole loop on this machine: no Kong, no AWS account, no Redis",
		Description: "Starts an emulated Admin API and an emulated CloudWatch Logs, makes Admin requests, and prints each\n" +
			"event as it arrives. Listens on loopback only; what it writes goes into a temporary folder.",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "for", Usage: "end after this time, such as 10s (default: at Ctrl-C)", HideDefault: true},
			&cli.DurationFlag{Name: "every", Usage: "time between two Admin requests", Value: 700 * time.Millisecond},
			&cli.StringFlag{Name: "page", Usage: "host:port of the page that shows what arrived", Value: "127.0.0.1:0"},
			&cli.BoolFlag{Name: "no-plugin", Usage: "notify the relay directly instead of through the plugin"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Duration("every") <= 0 {
				return config.Usagef("--every must be longer than 0")
			}
			if c.IsSet("for") && c.Duration("for") <= 0 {
				return config.Usagef("--for must be longer than 0; leave it out to run until Ctrl-C")
			}
			if err := config.CheckListen(c.String("page")); err != nil {
				return config.Usagef("--page is %q: %w", c.String("page"), err)
			}
			d := &demo{
				runFor: c.Duration("for"), every: c.Duration("every"), page: c.String("page"), plugin: !c.Bool("no-plugin"),
				version: version, out: stdout, stderr: stderr, answered: map[string]time.Time{},
			}
			return d.run(ctx)
		},
	}}
}
