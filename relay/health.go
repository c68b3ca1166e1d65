package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/opsclient"
)

// healthCommand is for images without a shell or curl: their health check is the
// program itself, with the settings of the one that serves.
func (e *env) healthCommand() *cli.Command {
	return &cli.Command{
		Name:  "health",
		Usage: "ask the relay that serves at --ops-listen whether it is alive, for a container's health check",
		Description: "Asks /healthz, or with --ready /readyz: whether Kong, ledger and destination have been reached since the\n" +
			"start, and the ledger can be used now. Exits with 0 if it is so, with 1 if not.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "ready", Usage: "ask whether it is ready, not only alive"}},
		Action: func(ctx context.Context, c *cli.Command) error {
			listen, err := config.OpsListen(flagValue(c), e.Getenv)
			if err != nil {
				return err
			}
			if listen == "" {
				return config.Usagef("--ops-listen (RELAY_OPS_LISTEN) is off: there is nothing to ask")
			}
			path := "/healthz"
			if c.Bool("ready") {
				path = "/readyz"
			}
			relay, err := opsclient.New(listen)
			if err != nil {
				return err
			}
			return relay.Health(ctx, path)
		},
	}
}
