package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
)

func (e *env) deadCommand() *cli.Command {
	filter := []cli.Flag{
		&cli.BoolFlag{Name: "all", Usage: "all of them"},
		&cli.StringFlag{Name: "code", Usage: "those with this code, such as InvalidData"},
		&cli.DurationFlag{Name: "older-than", Usage: "those that are older than this, such as 48h", HideDefault: true},
	}
	return &cli.Command{
		Name:  "dead",
		Usage: "list, show, retry or drop the entries that the destination refused",
		Commands: []*cli.Command{
			{
				Name: "list", Usage: "list dead letters and deferred entries, with reason and age",
				Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print a line of JSON for each, with the whole entry"}},
				Action: e.deadList,
			},
			{
				Name: "show", Usage: "show one of them whole, as JSON", ArgsUsage: "<id>",
				Action: e.deadShow,
			},
			{
				Name: "retry", Usage: "put them again; waits for a pass that is being made", ArgsUsage: "[<id>…]", Flags: filter,
				Action: e.deadRetry,
			},
			{
				Name: "drop", Usage: "give them up: they are not put again", ArgsUsage: "[<id>…]",
				Flags:  append([]cli.Flag{&cli.StringFlag{Name: "reason", Usage: "why, for the log", Required: true}}, filter...),
				Action: e.deadDrop,
			},
		},
	}
}

// shownUndelivered is an undelivered entry as it is printed: with its outcome as a word.
type shownUndelivered struct {
	audit.Undelivered
	Outcome string `json:"outcome"`
}

func (e *env) deadList(ctx context.Context, c *cli.Command) error {
	return e.withLedger(ctx, c, config.NeedLedger, func(a *app.App) error {
		list := a.Store.UndeliveredEntries(ctx)
		if !c.Bool("json") {
			return a.ExplainLedger(printUndelivered(e.Stdout, list))
		}
		for u, err := range list {
			if err != nil && !audit.IsUnreadable(err) {
				return a.ExplainLedger(err)
			}
			u = app.Explained(u, err)
			if err := printJSON(e.Stdout, shownUndelivered{u, u.Outcome.String()}); err != nil {
				return err
			}
		}
		return nil
	})
}

func printUndelivered(out io.Writer, list iter.Seq2[audit.Undelivered, error]) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	n := 0
	for u, err := range list {
		if err != nil && !audit.IsUnreadable(err) {
			return err
		}
		u = app.Explained(u, err)
		if n == 0 {
			fmt.Fprintln(w, "ID\tSTATE\tAGE\tTRIES\tREQUEST\tCODE\tREASON")
		}
		n++
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%.60q\t%s\t%.120q\n", u.Entry.ID, u.Outcome, time.Since(u.Since).Round(time.Second), u.Tries,
			u.Entry.Method+" "+u.Entry.Path, cmp.Or(u.Code, "-"), u.Reason)
	}
	if n == 0 {
		fmt.Fprintln(w, "no dead letters, and nothing deferred")
	}
	return w.Flush()
}

func (e *env) deadShow(ctx context.Context, c *cli.Command) error {
	if c.Args().Len() != 1 {
		return config.Usagef("relay dead show takes one id: relay dead list shows them")
	}
	return e.withLedger(ctx, c, config.NeedLedger, func(a *app.App) error {
		id := c.Args().First()
		u, found, err := a.Store.UndeliveredEntry(ctx, id)
		if err != nil {
			return a.ExplainLedger(err)
		}
		if !found {
			return app.NoUndelivered(id)
		}
		return json.MarshalEncode(jsontext.NewEncoder(e.Stdout, jsontext.WithIndent("  ")), shownUndelivered{u, u.Outcome.String()})
	})
}

// selection returns which undelivered entries the command line selects. It fails unless the
// command line either names ids or filters.
func selection(c *cli.Command) (*app.Selection, error) {
	switch {
	case c.IsSet("code") && c.String("code") == "": // it would select all of them
		return nil, config.Usagef("--code is empty: name a code, or give --all: relay dead list shows them")
	case c.IsSet("older-than") && c.Duration("older-than") <= 0:
		return nil, config.Usagef("--older-than must be longer than 0; --all selects all of them")
	}
	filtered := c.Bool("all") || c.IsSet("code") || c.IsSet("older-than")
	if filtered == c.Args().Present() {
		return nil, config.Usagef("name ids, or choose by --all, --code or --older-than: relay dead list shows them")
	}
	return &app.Selection{IDs: c.Args().Slice(), Code: c.String("code"), OlderThan: c.Duration("older-than")}, nil
}

func (e *env) deadRetry(ctx context.Context, c *cli.Command) error {
	selected, err := selection(c)
	if err != nil {
		return err
	}
	return e.withLedger(ctx, c, config.NeedLedger|config.NeedDestination, func(a *app.App) error {
		var list bytes.Buffer // printed once the lease is free, as a pager could hold up all passes
		left := 0
		delivered, err := a.Retry(ctx, selected, func(u *audit.Undelivered) {
			left++
			fmt.Fprintf(&list, "%s: %s %s\n", u.Entry.ID, cmp.Or(u.Code, "-"), u.Reason)
		})
		if err == nil || delivered+left > 0 {
			fmt.Fprintf(&list, "%d delivered, %d not delivered\n", delivered, left)
		}
		if _, writeErr := list.WriteTo(e.out(a.Settings)); err == nil {
			err = writeErr
		}
		if err == nil && left > 0 {
			return exitCode(exitFailed)
		}
		return err
	})
}

func (e *env) deadDrop(ctx context.Context, c *cli.Command) error {
	reason := c.String("reason")
	if strings.TrimSpace(reason) == "" {
		return config.Usagef("--reason is empty: say why, it goes into the log")
	}
	selected, err := selection(c)
	if err != nil {
		return err
	}
	return e.withLedger(ctx, c, config.NeedLedger, func(a *app.App) error {
		dropped, err := a.Drop(ctx, selected, reason)
		if err == nil || dropped > 0 {
			fmt.Fprintf(e.Stdout, "%d dropped\n", dropped)
		}
		return err
	})
}
