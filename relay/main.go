// Command relay moves Kong Gateway's audit log into AWS CloudTrail Lake.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// version is set by the release build.
var version = ""

// Exit codes.
const (
	exitOK         = 0
	exitFailed     = 1
	exitUsage      = 2 // wrong usage or settings, found before anything was contacted
	exitDifference = 3 // verify found a difference
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args, os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// env is what a command has of the outside world.
type env struct {
	getenv         func(string) string
	environ        []string
	stdout, stderr io.Writer
}

// run is the program: everything but the process's own exit and signals.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	e := &env{getenv: getenv, environ: os.Environ(), stdout: stdout, stderr: stderr}
	root := &cli.Command{
		Name:  "relay",
		Usage: "moves Kong Gateway's audit log into AWS CloudTrail Lake: nothing lost, nothing late",
		Description: "Every setting is a flag and a variable; the README lists them. Exit codes: 0 done, 1 failed,\n" +
			"2 wrong usage or settings, 3 verify found a difference.",
		Version:   buildVersion(),
		Writer:    stdout,
		ErrWriter: stderr,
		Flags:     settingFlags(),
		Commands: []*cli.Command{
			e.serveCommand(), e.onceCommand(), e.checkCommand(), e.statusCommand(), e.deadCommand(), e.demoCommand(),
			{Name: "version", Usage: "print the version", Action: func(context.Context, *cli.Command) error {
				fmt.Fprintln(stdout, buildVersion())
				return nil
			}},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return usagef("there is no command %q: relay help lists them", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // errors are printed here, once
		OnUsageError:   func(_ context.Context, _ *cli.Command, err error, _ bool) error { return &usageError{err} },
	}
	for _, c := range root.Commands {
		c.OnUsageError = root.OnUsageError
		for _, sub := range c.Commands {
			sub.OnUsageError = root.OnUsageError
		}
	}
	err := root.Run(ctx, args)
	return e.report(err)
}

// report prints an error for a person, with what to do where that is known.
func (e *env) report(err error) int {
	if err == nil {
		return exitOK
	}
	var (
		settings *audit.SettingsError
		wrong    *settingsError
		usage    *usageError
		code     exitCode
	)
	switch {
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &wrong), errors.As(err, &usage):
		fmt.Fprintf(e.stderr, "relay: %v\n", err)
		return exitUsage
	case errors.As(err, &settings):
		fmt.Fprintf(e.stderr, "relay: %v\nWhat to do: %s.\n", err, strings.TrimSuffix(settings.Hint, "."))
	default:
		fmt.Fprintf(e.stderr, "relay: %v\n", err)
	}
	return exitFailed
}

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// exitCode ends the program with that code and no further message.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// settingFlags makes a flag of every row of the settings table.
func settingFlags() []cli.Flag {
	var flags []cli.Flag
	for _, row := range settingsTable() {
		for _, f := range row.flags() {
			if f.isSwitch() {
				flags = append(flags, &cli.BoolFlag{Name: f.name, Usage: f.help + " [$" + f.env + "]", Category: f.group, HideDefault: true})
				continue
			}
			usage := f.help + " [$" + f.env + "]"
			if f.def != "" {
				usage += " (default " + f.def + ")"
			}
			flags = append(flags, &cli.StringFlag{Name: f.name, Usage: usage, Category: f.group, HideDefault: true})
		}
	}
	return flags
}

// settings reads flags and variables of a command.
func (e *env) settings(c *cli.Command, n need) (Settings, error) {
	flag := func(name string) (string, bool) {
		if !c.IsSet(name) {
			return "", false
		}
		return fmt.Sprint(c.Value(name)), true
	}
	return loadSettings(n, flag, e.getenv, os.ReadFile)
}
