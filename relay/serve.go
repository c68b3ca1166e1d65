package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/daemon"
)

func (e *env) serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "take triggers, and reconcile on a schedule, until it is told to stop",
		Description: "Shows a status page, /status, /healthz, /readyz and /metrics at --ops-listen, and takes triggers at --listen.\n" +
			"Ends on SIGINT or SIGTERM once the batches in flight are recorded; SIGHUP opens the file of a jsonl destination again.",
		CustomHelpTemplate: serveHelp(),
		Action: func(ctx context.Context, c *cli.Command) error {
			s, err := e.settings(c, config.NeedKong|config.NeedLedger|config.NeedDestination|config.NeedTrigger)
			if err != nil {
				return err
			}
			log := e.Logger(s)
			if err := e.serve(ctx, s, log); err != nil {
				log.Error("relay ends", app.ErrorAttrs(err)...)
				return exitCode(exitFailed)
			}
			return nil
		},
	}
}

// serve runs the daemon. What ends it before it was told to stop is for the log.
func (e *env) serve(ctx context.Context, s config.Settings, log *slog.Logger) error {
	handlePipe(s)
	a, err := app.Open(ctx, s, log, e.Stdout)
	if err != nil {
		return err
	}
	defer sayStop(ctx, log)()
	stop := e.reopenOnHangup(a)
	err = daemon.Run(ctx, a, daemon.Options{Version: buildVersion(), Stdout: e.Stdout, Stderr: e.Stderr})
	stop()
	return errors.Join(err, a.Close())
}
