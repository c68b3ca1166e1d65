package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/setup"
)

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
		Variables: e.given(c), RelayURL: strings.TrimRight(c.String("relay-url"), "/"), AdminURL: c.String("admin-url"), RBAC: !c.Bool("no-rbac"),
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

// given returns the settings that flags and variables give, by variable.
func (e *env) given(c *cli.Command) map[string]string {
	flags := flagValue(c)
	given := map[string]string{}
	for _, name := range config.Variables() {
		given[name] = e.Getenv(name)
	}
	for _, f := range config.Flags() {
		value, set := flags(f.Name)
		if !set {
			continue
		}
		for _, form := range []string{"_FILE", "_SECRET_ARN"} { // a flag of a secret beats its variables
			if secret, ok := strings.CutSuffix(f.Env, form); ok {
				given[secret], given[secret+"_FILE"], given[secret+"_SECRET_ARN"] = "", "", ""
			}
		}
		given[f.Env] = value
	}
	for name, value := range given {
		given[name] = strings.TrimSpace(value)
	}
	if given["REGION"] == "" {
		given["REGION"] = strings.TrimSpace(e.Getenv("AWS_REGION"))
	}
	return given
}
