package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"strconv"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
)

func (e *env) outagesCommand() *cli.Command {
	return &cli.Command{
		Name:  "outages",
		Usage: "list when Kong, the ledger or the destination failed, and how long entries waited",
		Description: "The ledger keeps outages for 400 days: a record of failures of the audit mechanism, their causes, and when\n" +
			"everything was complete again.",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "since", Usage: "how far to look back", Value: 30 * 24 * time.Hour},
			&cli.BoolFlag{Name: "json", Usage: "print a line of JSON for each"},
			&cli.BoolFlag{Name: "csv", Usage: "print comma-separated values"},
		},
		Action: e.outages,
	}
}

func (e *env) outages(ctx context.Context, c *cli.Command) error {
	if c.Bool("json") && c.Bool("csv") {
		return config.Usagef("give one of --json and --csv")
	}
	now := time.Now()
	return e.reading(func(ctx context.Context, c *cli.Command, l ledgerView) error {
		list, err := l.Outages(ctx, now.Add(-c.Duration("since")))
		if err != nil {
			return err
		}
		switch {
		case c.Bool("json"):
			for i := range list {
				if err := printJSON(e.Stdout, &list[i]); err != nil {
					return err
				}
			}
		case c.Bool("csv"):
			return e.outagesCSV(list, now)
		case len(list) == 0:
			fmt.Fprintln(e.Stdout, "no outages")
		default:
			for _, o := range list {
				fmt.Fprintf(e.Stdout, "%-12s %s to %-22s %4d entries waited, complete again %s\n             %s\n",
					o.Dependency, moment(o.From), outageEnd(o, now), o.Waited, optional(o.CompleteAt), o.Cause)
			}
		}
		return nil
	})(ctx, c)
}

func (e *env) outagesCSV(list []audit.Outage, now time.Time) error {
	w := csv.NewWriter(e.Stdout)
	rows := [][]string{{"dependency", "from", "to", "cause", "entries_waited", "complete_at"}}
	for _, o := range list {
		rows = append(rows, []string{o.Dependency, moment(o.From), outageEnd(o, now), o.Cause, strconv.Itoa(o.Waited), optional(o.CompleteAt)})
	}
	return w.WriteAll(rows)
}

// outageEnd says when an outage ended.
func outageEnd(o audit.Outage, now time.Time) string {
	switch {
	case !o.To.IsZero():
		return moment(o.To)
	case now.Sub(o.Seen) < app.OutageStale:
		return "now"
	}
	return "unknown (relay stopped after " + moment(o.Seen) + ")"
}

// optional formats a time that may be missing.
func optional(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return moment(t)
}
