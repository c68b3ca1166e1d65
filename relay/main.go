// Command relay delivers Kong Gateway's audit log to CloudWatch Logs, CloudTrail Lake or a file.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/demo"
	"github.com/kong-cloudtrail/relay/internal/lambdahost"
)

// Exit codes.
const (
	exitOK         = 0
	exitFailed     = 1
	exitUsage      = 2 // wrong usage or settings, found before anything was contacted
	exitDifference = 3 // verify found a difference
)

func main() {
	limitMemory(os.Getenv)
	cli.SubcommandHelpTemplate = commandHelp // the library has no other way to set it for a command with subcommands
	// Libraries may write parts of an answer to Go's standard logger.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the program at once
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	code := run(ctx, hangup, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// env is the outside world of a command. The commands are its methods.
type env struct {
	app.Env
	args   []string         // of the command line
	hangup <-chan os.Signal // SIGHUP: the destination's file is opened again
	stdin  *os.File
	// fromFile are the variables that --env-file has set; nil: it was not read.
	fromFile map[string]bool
	serving  *serving // set for a command that this relay runs for another process; else nil
}

// run is the program: everything but the process's own exit and signals.
func run(ctx context.Context, hangup <-chan os.Signal, args []string, stdout, stderr io.Writer) int {
	trimEnvironment()
	e := &env{Env: app.Env{Getenv: os.Getenv, Stdout: stdout, Stderr: stderr}, args: args, hangup: hangup, stdin: os.Stdin}
	if os.Getenv(lambdahost.RuntimeAPI) != "" {
		lambdahost.Run(ctx, e.Env)
		return exitOK
	}
	return e.run(ctx, e.commands())
}

// run runs the command that the command line names, and returns the exit code.
func (e *env) run(ctx context.Context, commands []*cli.Command) int {
	root := &cli.Command{
		Name:  "relay",
		Usage: "delivers Kong Gateway's audit log to CloudWatch Logs, CloudTrail Lake or a file",
		Description: "Every setting is a flag and a variable; relay/README.md lists them. Exit codes: 0 done, 1 failed,\n" +
			"2 wrong usage or settings, 3 verify found a difference.",
		Version:   buildVersion(),
		Writer:    e.Stdout,
		ErrWriter: e.Stderr,
		Flags:     append(settingFlags(), &cli.StringFlag{Name: envFile, Category: "Running", Usage: "file of variables, NAME=value lines; the environment takes precedence over it"}),
		Commands:  commands,
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return noCommand(c, "", "relay help")
			}
			return cli.ShowAppHelp(c)
		},
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // errors are printed here, once
		OnUsageError:   wrongUsage,

		EnableShellCompletion: true,
		ConfigureShellCompletionCommand: func(c *cli.Command) {
			c.Hidden, c.Usage = false, "print a script that completes commands and flags in bash, zsh, fish or pwsh"
		},
	}
	for _, c := range root.Commands {
		e.applyDefaults(c)
	}
	return e.report(root.Run(ctx, e.args))
}

// trimEnvironment removes blanks and line ends around the values of the variables that AWS's
// SDK and net/http read themselves. A file with Windows line ends leaves them there.
func trimEnvironment() {
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		trimmed := strings.TrimSpace(value)
		if trimmed == value || !strings.HasPrefix(name, "AWS_") && !strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			continue
		}
		_ = os.Setenv(name, trimmed) // fails only for a name or a value that no environment holds
	}
}

func (e *env) commands() []*cli.Command {
	commands := []*cli.Command{
		e.initCommand(), e.checkCommand(), e.serveCommand(), e.onceCommand(), e.verifyCommand(), e.statusCommand(), e.historyCommand(), e.outagesCommand(), e.deadCommand(), e.healthCommand(),
		e.settingsCommand(), e.tapCommand(),
	}
	commands = append(commands, demo.Commands(buildVersion(), e.Stdout, e.Stderr)...)
	return append(commands, e.versionCommand())
}

// report prints an error for a person, with what to do where that is known.
func (e *env) report(err error) int {
	if err == nil {
		return exitOK
	}
	var code exitCode
	switch {
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, new(*config.Error)):
		fmt.Fprintf(e.Stderr, "relay: %v\n", err)
		return exitUsage
	case errors.As(err, new(cli.ExitCoder)): // relay help with an unknown command
		fmt.Fprintf(e.Stderr, "relay: %v: relay help lists the commands\n", err)
		return exitUsage
	case audit.Hint(err) != "":
		fmt.Fprintf(e.Stderr, "relay: %v\nWhat to do: %s.\n", err, strings.TrimSuffix(audit.Hint(err), "."))
	default:
		fmt.Fprintf(e.Stderr, "relay: %v\n", err)
	}
	return exitFailed
}

// exitCode is the error of a command that has already printed why it failed: the program ends
// with that code.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// version is set by the release build.
var version = ""

func (e *env) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version", Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print it as JSON, with Go's version and the platform"}},
		Action: func(_ context.Context, c *cli.Command) error {
			if !c.Bool("json") {
				fmt.Fprintln(e.Stdout, buildVersion())
				return nil
			}
			return printJSON(e.Stdout, struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH})
		},
	}
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
