package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/config"
)

// applyDefaults gives a command and those below it what all of them have: a short
// help, variables from a file, and errors for commands and arguments that they do not know.
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

// noCommand is the error for a command that there is not.
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

// commandHelp is the help of a command: without the settings, which the
// program's own help lists.
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

// serveHelp is the help of serve, with the settings: those that most installations
// set first, then all others by group.
func serveHelp() string {
	var b strings.Builder
	write := func(headline string, flags []config.Flag) {
		fmt.Fprintf(&b, "\n%s:\n", headline)
		for _, f := range flags {
			value := ""
			if !f.IsSwitch() {
				value = " " + f.Value
			}
			def := ""
			if f.Default != "" {
				def = " (default " + f.Default + ")"
			}
			fmt.Fprintf(&b, "   --%s%s [$%s]%s\n      %s\n", f.Name, value, f.Env, def, f.Help)
		}
	}
	short, all := config.ShortList(), config.Flags()
	var first []config.Flag
	for _, name := range short {
		if i := slices.IndexFunc(all, func(f config.Flag) bool { return f.Name == name }); i >= 0 {
			first = append(first, all[i])
		}
	}
	write("SETTINGS THAT MOST INSTALLATIONS NEED", first)
	for len(all) > 0 {
		group := all[0].Group
		var rest, those []config.Flag
		for _, f := range all {
			switch {
			case f.Group != group:
				rest = append(rest, f)
			case !slices.Contains(short, f.Name):
				those = append(those, f)
			}
		}
		if len(those) > 0 {
			write(strings.ToUpper(group), those)
		}
		all = rest
	}
	text := strings.NewReplacer("{{", "{", "}}", "}").Replace(b.String()) // it becomes a template
	return commandUsage + text + "\nEach is a flag, before or after the command, and a variable; --env-file reads variables from a file. relay settings\nshows what is in force and where it came from.\n"
}

// useEnvFile takes the variables of --env-file, where the environment does not set them.
func (e *env) useEnvFile(c *cli.Command) error {
	path := c.String(envFile)
	if path == "" || e.fromFile != nil {
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
	before := e.Getenv
	for name, value := range vars {
		if before(name) != "" {
			continue
		}
		e.fromFile[name] = true
		e.Environ = append(e.Environ, name+"="+value)
		// AWS's SDK and net/http read the environment themselves.
		if err := os.Setenv(name, value); err != nil {
			return config.Usagef("--%s: %s: setting %s: %w", envFile, path, name, err)
		}
	}
	e.Getenv = func(name string) string {
		if e.fromFile[name] {
			return vars[name]
		}
		return before(name)
	}
	return nil
}

// envFile names the flag of a file of variables.
const envFile = "env-file"

// Colours of a terminal.
const (
	green = "32"
	red   = "31"
)

// paint colours a text for a person at a terminal, unless NO_COLOR is set.
func (e *env) paint(w io.Writer, colour, text string) string {
	if !app.IsTerminal(w) || e.Getenv("NO_COLOR") != "" || e.Getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}
