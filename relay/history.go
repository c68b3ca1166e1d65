package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/history"
)

func (e *env) historyCommand() *cli.Command {
	return &cli.Command{
		Name:      "history",
		Usage:     "say who changed an entity of Kong, when, and from what to what: relay history routes/orders",
		ArgsUsage: "<type>/<name or id>",
		Description: `Reads Kong's logs of requests and of changed entities, and prints the changes of one entity, newest first.
Nothing but Kong is needed: no ledger and no destination. It goes back as far as Kong keeps its logs.

The type is that of Kong's log or of a path of the Admin API: routes, services, plugins, consumers,
upstreams, certificates, key-auth. Secrets are replaced by digests, which differ if the secret was changed.

A change is approximate if another one may lie between its two states: Kong's times are whole seconds, and
Kong can lose rows. It is unavailable if Kong holds no earlier state of the entity.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "changes from this time on (RFC 3339, a date, Unix seconds, or a span such as 36h); by default all that Kong holds"},
			&cli.BoolFlag{Name: "json", Usage: "print a line of JSON for each change"},
		},
		Action: e.history,
	}
}

func (e *env) history(ctx context.Context, c *cli.Command) error {
	kind, name, ok := strings.Cut(c.Args().First(), "/")
	if c.Args().Len() != 1 || !ok || kind == "" || name == "" {
		return config.Usagef("relay history takes one argument, a type and a name or id with a slash between them, such as routes/orders")
	}
	since, _, err := config.Window(c.String("since"), "", time.Now())
	if err != nil {
		return err
	}
	return e.with(ctx, c, config.NeedKong, func(a *app.App) error {
		defer allowHistoryMemory(e.Getenv)()
		report, err := a.History(ctx, kind, name, since)
		if err != nil {
			return err
		}
		if len(report.Events) == 0 {
			return nothingFound(report, since)
		}
		if !c.Bool("json") {
			return report.Print(e.Stdout, e.showsColours(e.Stdout))
		}
		return printLines(e.Stdout, report.Events)
	})
}

// nothingFound says why there is no history, as far as that is known.
func nothingFound(r *history.Report, since int64) error {
	back := "in Kong's log"
	if since > 0 {
		back += " since " + app.Moment(time.Unix(since, 0))
	} else if r.Oldest > 0 {
		back += ", which begins at " + app.Moment(time.Unix(r.Oldest, 0))
	}
	err := fmt.Errorf("there is no change of %s/%s %s", r.Entity, r.Name, back)
	switch {
	case len(r.Keys) > 0:
		return audit.WithHint(err, "give an earlier --since, or none")
	case len(r.Similar) > 0:
		return audit.WithHint(err, "look at the name: entities of this type that did change are called "+strings.Join(r.Similar, ", "))
	}
	return audit.WithHint(err, "look at type and name, and at audit_log_ignore_tables in kong.conf; what was last changed longer ago than audit_log_record_ttl is not in the log")
}
