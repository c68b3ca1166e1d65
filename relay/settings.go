package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/config"
)

func (e *env) settingsCommand() *cli.Command {
	return &cli.Command{
		Name:  "settings",
		Usage: "show the settings that are in force, and where each came from; checks them and contacts nothing",
		Description: "Checks the settings as serve would, and ends with 2 if any is missing or wrong. Of a secret it shows only\n" +
			"that there is one.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "also those that are not set"},
			&cli.BoolFlag{Name: "json", Usage: "print a line of JSON for each"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			s, err := e.settings(c, config.NeedKong|config.NeedLedger|config.NeedDestination|config.NeedTrigger)
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
					fmt.Fprintf(w, "%s\t%s\t%s\n", in.Name, app.OrDash(in.Value), in.From)
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
