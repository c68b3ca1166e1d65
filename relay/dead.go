package main

import (
	"cmp"
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/opsclient"
)

func (e *env) deadCommand() *cli.Command {
	filter := []cli.Flag{
		&cli.BoolFlag{Name: "all", Usage: "all of them"},
		&cli.StringFlag{Name: "code", Usage: "those with this code, such as InvalidData"},
		&cli.DurationFlag{Name: "older-than", Usage: "those that are older, such as 48h", HideDefault: true},
	}
	return &cli.Command{
		Name:  "dead",
		Usage: "list, show, retry or drop the entries that the destination refused",
		Commands: []*cli.Command{
			{
				Name: "list", Usage: "list dead letters and deferred entries, with reason and age",
				Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "a line of JSON each, with the whole entry"}},
				Action: e.reading(e.deadList),
			},
			{
				Name: "show", Usage: "show one, whole, as JSON", ArgsUsage: "<id>",
				Action: checked(validateShow, e.reading(e.deadShow)),
			},
			{
				Name: "retry", Usage: "put them again; waits for a pass that is being made", ArgsUsage: "[<id>…]", Flags: filter,
				Action: checked(validateSelection, e.deadRetry),
			},
			{
				Name: "drop", Usage: "give them up: they are not put again", ArgsUsage: "[<id>…]",
				Flags:  append([]cli.Flag{&cli.StringFlag{Name: "reason", Usage: "why, for the log", Required: true}}, filter...),
				Action: checked(validateDrop, e.deadDrop),
			},
		},
	}
}

// checked makes a command look at its command line before it opens anything.
func checked(validate func(c *cli.Command) error, action cli.ActionFunc) cli.ActionFunc {
	return func(ctx context.Context, c *cli.Command) error {
		if err := validate(c); err != nil {
			return err
		}
		return action(ctx, c)
	}
}

func validateShow(c *cli.Command) error {
	if c.Args().Len() != 1 {
		return config.Usagef("relay dead show takes one id: relay dead list shows them")
	}
	return nil
}

// shownUndelivered is an undelivered entry as it is printed: with a word for its outcome.
type shownUndelivered struct {
	audit.Undelivered
	Outcome string `json:"outcome"`
}

func (e *env) deadList(ctx context.Context, c *cli.Command, from ledgerView) error {
	if c.Bool("json") {
		for l, err := range from.UndeliveredEntries(ctx) {
			if err != nil {
				return err
			}
			if err := printJSON(e.Stdout, shownUndelivered{l, l.Outcome.String()}); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(e.Stdout, 0, 4, 2, ' ', 0)
	n := 0
	for l, err := range from.UndeliveredEntries(ctx) {
		if err != nil {
			return err
		}
		if n == 0 {
			fmt.Fprintln(w, "ID\tSTATE\tAGE\tTRIES\tREQUEST\tCODE\tREASON")
		}
		n++
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%.60q\t%s\t%.120q\n", l.Entry.ID, l.Outcome, time.Since(l.Since).Round(time.Second), l.Tries,
			l.Entry.Method+" "+l.Entry.Path, cmp.Or(l.Code, "-"), l.Reason)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if n == 0 {
		fmt.Fprintln(e.Stdout, "no dead letters, and nothing deferred")
	}
	return nil
}

func (e *env) deadShow(ctx context.Context, c *cli.Command, from ledgerView) error {
	l, found, err := from.UndeliveredEntry(ctx, c.Args().First())
	if err != nil {
		return err
	}
	if !found {
		return app.NoUndelivered(c.Args().First())
	}
	return json.MarshalEncode(jsontext.NewEncoder(e.Stdout, jsontext.WithIndent("  ")), shownUndelivered{l, l.Outcome.String()})
}

// validateSelection returns an error unless the command line selects undelivered
// entries in exactly one way.
func validateSelection(c *cli.Command) error {
	filtered := c.Bool("all") || c.IsSet("code") || c.IsSet("older-than")
	if filtered == c.Args().Present() {
		return config.Usagef("name ids, or choose by --all, --code or --older-than: relay dead list shows them")
	}
	return nil
}

// selection returns which undelivered entries the command line selects.
func selection(c *cli.Command) *app.Selection {
	return &app.Selection{IDs: c.Args().Slice(), Code: c.String("code"), OlderThan: c.Duration("older-than")}
}

func (e *env) deadRetry(ctx context.Context, c *cli.Command) error {
	var (
		r   app.Retried
		out = e.Stdout
	)
	err := e.withLedgerOrRelay(ctx, c, config.NeedLedger|config.NeedDestination, func(ctx context.Context, a *app.App) (err error) {
		out = e.out(a.Settings)
		r, err = a.Retry(ctx, selection(c))
		return err
	}, func(ctx context.Context, relay *opsclient.Client) (err error) {
		r, err = relay.Retry(ctx, selection(c))
		return err
	})
	for _, l := range r.Left {
		fmt.Fprintf(out, "%s: %s %s\n", l.ID, cmp.Or(l.Code, "-"), l.Reason)
	}
	if err == nil || r.Delivered+len(r.Left) > 0 {
		fmt.Fprintf(out, "%d delivered, %d not delivered\n", r.Delivered, len(r.Left))
	}
	if err == nil && len(r.Left) > 0 {
		return exitCode(exitFailed)
	}
	return err
}

func validateDrop(c *cli.Command) error {
	if c.String("reason") == "" {
		return config.Usagef("--reason is empty: say why, it goes into the log")
	}
	return validateSelection(c)
}

func (e *env) deadDrop(ctx context.Context, c *cli.Command) error {
	dropped, reason := 0, c.String("reason")
	err := e.withLedgerOrRelay(ctx, c, config.NeedLedger, func(ctx context.Context, a *app.App) (err error) {
		dropped, err = a.Drop(ctx, selection(c), reason)
		return err
	}, func(ctx context.Context, relay *opsclient.Client) (err error) {
		dropped, err = relay.Drop(ctx, selection(c), reason)
		return err
	})
	if err == nil || dropped > 0 {
		fmt.Fprintf(e.Stdout, "%d dropped\n", dropped)
	}
	return err
}
