package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/daemon"
	"github.com/kong-cloudtrail/relay/internal/opsclient"
)

func (e *env) serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "take triggers, and reconcile on a schedule, until it is told to stop",
		Description: "Shows a status page, /status, /healthz, /readyz and /metrics at --ops-listen, and takes triggers at --listen.\n" +
			"Ends on SIGINT or SIGTERM once the batches in flight are recorded; SIGHUP opens the file of a jsonl destination again.",
		CustomHelpTemplate: serveHelp(),
		Action: func(ctx context.Context, c *cli.Command) error {
			s, err := e.settings(c, config.NeedAll)
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

// serve runs the daemon until it is told to stop. It returns an error if something else ends it.
func (e *env) serve(ctx context.Context, s config.Settings, log *slog.Logger) error {
	handlePipe(s)
	a, err := app.Open(ctx, s, log, e.Stdout, config.NeedAll)
	if err != nil {
		return err
	}
	defer sayStop(ctx, log)()
	stop := e.reopenOnHangup(a)
	err = daemon.Run(ctx, a, daemon.Options{
		Version: buildVersion(), Stdout: e.Stdout, Stderr: e.Stderr, Command: (&serving{app: a}).run,
	})
	stop()
	return errors.Join(err, a.Close())
}

// serveHelp returns the template for the help of serve. It lists the settings: first those
// that most installations set, then all others by group.
func serveHelp() string {
	var b strings.Builder
	write := func(f config.Flag) {
		value, def := "", ""
		if !f.IsSwitch() {
			value = " " + f.Value
		}
		if f.Default != "" {
			def = " (default " + f.Default + ")"
		}
		fmt.Fprintf(&b, "   --%s%s [$%s]%s\n      %s\n", f.Name, value, f.Env, def, f.Help)
	}
	short, all := config.ShortList(), config.Flags()
	b.WriteString("\nSETTINGS THAT MOST INSTALLATIONS NEED:\n")
	for _, name := range short {
		write(all[slices.IndexFunc(all, func(f config.Flag) bool { return f.Name == name })])
	}
	group := ""
	for _, f := range all {
		if slices.Contains(short, f.Name) {
			continue
		}
		if f.Group != group {
			group = f.Group
			fmt.Fprintf(&b, "\n%s:\n", strings.ToUpper(group))
		}
		write(f)
	}
	text := strings.NewReplacer("{{", "{", "}}", "}").Replace(b.String()) // it becomes part of a template
	return commandUsage + text + "\nEach is a flag, before or after the command, and a variable; --env-file reads variables from a file. relay settings\nshows what is in force and where it came from.\n"
}

// healthCommand is for images without a shell or curl: the container's health check runs this
// program, with the settings of the one that serves.
func (e *env) healthCommand() *cli.Command {
	return &cli.Command{
		Name:  "health",
		Usage: "ask the relay that serves at --ops-listen whether it is alive, for a container's health check",
		Description: "Asks /healthz, or with --ready /readyz: whether Kong, ledger and destination have been reached since the\n" +
			"start, and the ledger can be used now. Exits with 0 if so, and with 1 if not.",
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
