package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/setup"
)

func settingFlags() []cli.Flag {
	var flags []cli.Flag
	for _, f := range config.Flags() {
		usage := f.Help + " [$" + f.Env + "]"
		if f.IsSwitch() {
			flags = append(flags, &cli.BoolFlag{Name: f.Name, Usage: usage, Category: f.Group, HideDefault: true})
			continue
		}
		if f.Default != "" {
			usage += " (default " + f.Default + ")"
		}
		flags = append(flags, &cli.StringFlag{Name: f.Name, Usage: usage, Category: f.Group, HideDefault: true})
	}
	return flags
}

func flagValue(c *cli.Command) func(name string) (value string, set bool) {
	return func(name string) (string, bool) {
		if !c.IsSet(name) {
			return "", false
		}
		return fmt.Sprint(c.Value(name)), true
	}
}

// settings reads a command's flags and variables. It also names variables that look like
// settings and are not, even if settings are missing or wrong: a misspelt variable is often
// why one is missing.
func (e *env) settings(c *cli.Command, n config.Need) (config.Settings, error) {
	s, err := config.Load(n, flagValue(c), e.Getenv, os.ReadFile)
	unknown := config.UnknownVariables(os.Environ())
	if err != nil {
		for _, w := range unknown {
			fmt.Fprintf(e.Stderr, "relay: warning: %s\n", w)
		}
		return s, err
	}
	s.Warnings = append(s.Warnings, unknown...)
	return s, nil
}

// useEnvFile sets the variables of --env-file that the environment does not set.
func (e *env) useEnvFile(c *cli.Command) error {
	path := c.String(envFile)
	if path == "" || e.fromFile != nil || e.serving != nil {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return config.Usagef("--%s: %w", envFile, err)
	}
	vars, err := config.ParseEnvFile(string(text))
	if err != nil {
		return config.Usagef("--%s: %s: %w", envFile, path, err)
	}
	e.fromFile = map[string]bool{}
	for name, value := range vars {
		if strings.TrimSpace(e.Getenv(name)) != "" {
			continue
		}
		e.fromFile[name] = true
		// AWS's SDK and net/http read the environment themselves.
		if err := os.Setenv(name, value); err != nil {
			return config.Usagef("--%s: %s: setting %s: %w", envFile, path, name, err)
		}
	}
	return nil
}

const envFile = "env-file"

func (e *env) settingsCommand() *cli.Command {
	return &cli.Command{
		Name:  "settings",
		Usage: "show the settings that are in force, and where each came from; checks them and contacts nothing",
		Description: "Checks the settings as serve would, and exits with 2 if any is missing or wrong. It does not show a secret,\n" +
			"only that there is one.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "show also those that are not set"},
			&cli.BoolFlag{Name: "json", Usage: "print a line of JSON for each"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			s, err := e.settings(c, config.NeedAll)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(e.Stdout, 0, 4, 2, ' ', 0)
			if !c.Bool("json") {
				fmt.Fprintln(w, "SETTING\tVALUE\tFROM")
			}
			for _, in := range s.InForce() {
				if in.From == "variable" && e.fromFile[in.Variable] {
					in.From = "--" + envFile
				}
				switch {
				case in.From == "not set" && !c.Bool("all"):
				case c.Bool("json"):
					if err := printJSON(e.Stdout, &in); err != nil {
						return err
					}
				default:
					fmt.Fprintf(w, "%s\t%s\t%s\n", in.Name, cmp.Or(in.Value, "-"), in.From)
				}
			}
			if err := w.Flush(); err != nil {
				return err
			}
			for _, warning := range s.Warnings {
				fmt.Fprintf(e.Stderr, "relay: warning: %s\n", warning)
			}
			return nil
		},
	}
}

func (e *env) initCommand() *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make the files of a new installation: settings, secrets, Kong's side, permissions",
		Description: "Takes what flags and variables say, asks for the rest on a terminal, and writes files for the relay, Kong and AWS\n" +
			"into a folder, or prints them. It contacts nothing, changes nothing, and overwrites no file.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "`folder` to write to; without it the files are printed"},
			&cli.StringFlag{Name: "relay-url", Usage: "`address` of the relay as Kong reaches it, such as http://relay:8080"},
			&cli.StringFlag{Name: "admin-url", Usage: "`address` of the Admin API as the gateway reaches it (default: http://127.0.0.1:8001)"},
			&cli.BoolFlag{Name: "no-rbac", Usage: "the Admin API asks for no token"},
		},
		Action: e.init,
	}
}

func (e *env) init(_ context.Context, c *cli.Command) error {
	p := &setup.Plan{
		Variables: config.Given(flagValue(c), e.Getenv), RelayURL: strings.TrimRight(c.String("relay-url"), "/"), AdminURL: c.String("admin-url"), RBAC: !c.Bool("no-rbac"),
	}
	dir := c.String("dir")
	if app.IsTerminal(e.stdin) {
		d := setup.NewDialog(e.stdin, e.Stderr)
		if err := d.Questions(p); err != nil {
			return err
		}
		if !c.IsSet("dir") {
			var err error
			if dir, err = d.Ask("Folder for the files, or - to print them", "kong-audit"); err != nil {
				return err
			}
		}
	}
	if err := p.Complete(); err != nil {
		return err
	}
	files, err := p.Files()
	if err != nil {
		return err
	}
	if dir == "" || dir == "-" {
		for _, f := range files {
			fmt.Fprintf(e.Stdout, "=== %s: %s\n%s\n", f.Name, f.What, f.Text)
		}
		return nil
	}
	if err := setup.Write(dir, files); err != nil {
		return err
	}
	for _, f := range files {
		fmt.Fprintf(e.Stdout, "%-32s %s\n", filepath.Join(dir, f.Name), f.What)
	}
	fmt.Fprintf(e.Stdout, "\nNext: %s\n", strings.Join(p.Next(dir), "\n      "))
	return nil
}
