package main

import (
	"context"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/config"
)

// applyDefaults gives a command and its subcommands what all of them have: a short help,
// variables from a file, and errors for unknown commands and arguments.
func (e *env) applyDefaults(c *cli.Command) {
	c.OnUsageError = wrongUsage
	if c.CustomHelpTemplate == "" {
		c.CustomHelpTemplate = commandHelp
	}
	for _, sub := range c.Commands {
		e.applyDefaults(sub)
	}
	switch act := c.Action; {
	case len(c.Commands) > 0:
		c.Action = func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return noCommand(c, c.FullName()+" ", c.FullName()+" --help")
			}
			return cli.ShowSubcommandHelp(c)
		}
	default:
		takesNone := c.ArgsUsage == ""
		c.Action = func(ctx context.Context, c *cli.Command) error {
			if takesNone && c.Args().Present() {
				return config.Usagef("%s takes no argument, and got %q: flags begin with --", c.FullName(), c.Args().First())
			}
			if err := e.useEnvFile(c); err != nil {
				return err
			}
			return act(ctx, c)
		}
	}
}

func noCommand(c *cli.Command, prefix, lists string) error {
	name := c.Args().First()
	var known []string
	for _, sub := range c.Commands {
		known = append(known, sub.Name)
	}
	if other := config.Nearest(name, known); other != "" {
		return config.Usagef("there is no command %q: did you mean %s? %s lists them", prefix+name, prefix+other, lists)
	}
	return config.Usagef("there is no command %q: %s lists them", prefix+name, lists)
}

func wrongUsage(_ context.Context, c *cli.Command, err error, _ bool) error {
	const notDefined = "flag provided but not defined: -"
	if name, ok := strings.CutPrefix(err.Error(), notDefined); ok {
		name = strings.TrimLeft(name, "-")
		var known []string
		for _, parent := range c.Lineage() {
			for _, f := range parent.Flags {
				known = append(known, f.Names()[0])
			}
		}
		if other := config.Nearest(name, known); other != "" {
			return config.Usagef("%w: did you mean --%s? %s --help lists what there is", err, other, c.FullName())
		}
	}
	return config.Usagef("%w: %s --help lists what there is", err, c.FullName())
}

// commandHelp is the template for the help of a command. It leaves out the settings, which
// relay --help lists.
const commandHelp = commandUsage + `
relay --help lists the settings: each is a flag, before or after the command, and a variable.
`

const commandUsage = `{{template "helpNameTemplate" .}}

USAGE:
   {{if .VisibleCommands}}{{.FullName}} <command> [flags]{{else}}{{.FullName}}{{if .VisibleFlags}} [flags]{{end}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}{{end}}
{{if .Description}}
{{.Description}}
{{end}}{{if .VisibleCommands}}
COMMANDS:{{template "visibleCommandTemplate" .}}
{{end}}{{if .VisibleFlags}}
FLAGS:{{template "visibleFlagTemplate" .}}
{{end}}`

// Colours of a terminal.
const (
	green = "32"
	red   = "31"
)

func (e *env) paint(w io.Writer, colour, text string) string {
	if !e.showsColours(w) {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// showsColours reports whether w is a terminal that shows colours, unless NO_COLOR is set.
func (e *env) showsColours(w io.Writer) bool {
	return app.IsTerminal(w) && e.Getenv("NO_COLOR") == "" && e.Getenv("TERM") != "dumb"
}

func printJSON(w io.Writer, v any) error { return json.MarshalEncode(jsontext.NewEncoder(w), v) }

// printLines writes a line of JSON for each value.
func printLines[T any](w io.Writer, list []T) error {
	for i := range list {
		if err := printJSON(w, &list[i]); err != nil {
			return err
		}
	}
	return nil
}
