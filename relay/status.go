package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/opsclient"
)

const watchEvery = 2 * time.Second

func (e *env) statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "tell whether everything is delivered, and what is wrong if not",
		Description: "Asks the relay that serves at --ops-listen, or the ledger if none answers there. Exits with 1 if\n" +
			"something fails or is missing.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print it as JSON"},
			&cli.BoolFlag{Name: "watch", Usage: fmt.Sprintf("show it anew every %.0f seconds, until Ctrl-C", watchEvery.Seconds())},
		},
		Action: e.status,
	}
}

func (e *env) status(ctx context.Context, c *cli.Command) error {
	for {
		s, err := e.askStatus(ctx, c)
		if !c.Bool("watch") {
			if err != nil {
				return err
			}
			return e.printStatus(c, &s)
		}
		if app.IsTerminal(e.Stdout) {
			fmt.Fprint(e.Stdout, "\x1b[H\x1b[2J") // move the cursor to the top left, and clear the screen
		}
		if err != nil {
			e.report(err)
		} else if err := e.printStatus(c, &s); err != nil && !errors.As(err, new(exitCode)) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

// askStatus asks the running relay how things stand, or the ledger if none runs.
func (e *env) askStatus(ctx context.Context, c *cli.Command) (app.Status, error) {
	listen, err := config.OpsListen(flagValue(c), e.Getenv)
	if err != nil {
		return app.Status{}, err
	}
	var said error
	if listen != "" {
		relay, err := opsclient.New(listen)
		if err != nil {
			return app.Status{}, err
		}
		if s, ok := relay.Status(ctx); ok {
			return s, nil
		}
		said = fmt.Errorf("no relay answers at %s (--ops-listen), and the ledger cannot be asked", listen)
	}
	var s app.Status
	err = e.with(ctx, c, config.NeedLedger, func(a *app.App) (err error) {
		s, err = a.LedgerStatus(ctx)
		return a.ExplainLedger(err)
	})
	if err != nil && said != nil {
		err = fmt.Errorf("%w: %w", said, err)
	}
	return s, err
}

func (e *env) printStatus(c *cli.Command, s *app.Status) error {
	if c.Bool("json") {
		if err := printJSON(e.Stdout, s); err != nil {
			return err
		}
	} else {
		colour := green
		if s.Failing {
			colour = red
		}
		fmt.Fprintln(e.Stdout, e.paint(e.Stdout, colour, strings.ToUpper(s.Verdict[:1])+s.Verdict[1:]))
		writeStatus(e.Stdout, s)
	}
	if s.Failing {
		return exitCode(exitFailed)
	}
	return nil
}

// writeStatus prints a status for a person, without its verdict.
func writeStatus(w io.Writer, s *app.Status) {
	if s.Hint != "" {
		fmt.Fprintf(w, "What to do: %s.\n", strings.TrimSuffix(s.Hint, "."))
	}
	fmt.Fprintln(w)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-20s %s\n", name, fmt.Sprintf(format, args...))
	}
	from := "the ledger: no relay answers at --ops-listen"
	if s.From == "relay" {
		from = "the running relay " + s.Version + ", since " + app.Moment(s.StartedAt)
	}
	line("said by", "%s", from)
	line("kong", "%s", cmp.Or(s.Names.Kong, "-"))
	line("ledger", "%s, source %s", s.Names.Ledger, s.Names.Source)
	line("destination", "%s", s.Names.Destination)
	for _, w := range s.Warnings {
		line("warning", "%s", w)
	}
	for _, d := range s.Dependencies {
		text := string(d.Status)
		if !d.Since.IsZero() {
			text += " since " + app.Moment(d.Since)
		}
		if d.Cause != "" {
			text += ": " + d.Cause
		}
		line("  "+string(d.Dependency), "%s", text)
		if d.Hint != "" && d.Hint != s.Hint {
			line("", "what to do: %s", strings.TrimSuffix(d.Hint, "."))
		}
	}
	line("delivered up to", "%s", ago(s.At, s.DeliveredUpTo))
	line("reconciled through", "%s", ago(s.At, s.ReconciledThrough))
	line("full reconcile began", "%s", ago(s.At, s.FullAt))
	line("complete pass began", "%s", ago(s.At, s.LastComplete))
	if !s.OldestUndelivered.IsZero() {
		line("oldest undelivered", "%s", ago(s.At, s.OldestUndelivered))
	}
	if s.Resumes {
		line("", "a reconcile was cut short; the next one goes on where it stopped")
	}
	line("dead letters", "%d", s.Dead)
	line("deferred", "%d", s.Deferred)
	for _, u := range s.Undelivered {
		line("  "+u.Outcome, "%d %s: %s", u.Count, u.Code, u.Reason)
	}
	line("announced ids", "%d waited for, %d missing", s.Waiting, s.Missing)
	for _, l := range s.Lost {
		line("  missing", "%s, announced %s", l.ID, app.Moment(l.At))
	}
	if len(s.Outages) > 0 {
		o := s.Outages[0]
		line("last outage", "%s, %s to %s: %s", o.Dependency, app.Moment(o.From), outageEnd(o, s.At), o.Cause)
	}
}

func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return fmt.Sprintf("%s (%s ago)", app.Moment(t), max(0, now.Sub(t)).Round(time.Second))
}

func (e *env) outagesCommand() *cli.Command {
	return &cli.Command{
		Name:  "outages",
		Usage: "list when Kong, the ledger or the destination failed, and how long entries waited",
		Description: "The ledger keeps outages for 400 days: a record of failures of the audit mechanism, their causes, and when\n" +
			"everything was complete again.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "outages from this time on (RFC 3339, a date, Unix seconds, or a span such as 36h)", Value: fmt.Sprintf("%.0fh", app.ShownOutages.Hours())},
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
	since, _, err := config.Window(c.String("since"), "", time.Now())
	if err != nil {
		return err
	}
	return e.withLedger(ctx, c, config.NeedLedger, func(a *app.App) error {
		now := time.Now()
		list, err := a.Store.Outages(ctx, time.Unix(since, 0))
		if err != nil {
			return a.ExplainLedger(err)
		}
		switch {
		case c.Bool("json"):
			return printLines(e.Stdout, list)
		case c.Bool("csv"):
			return e.outagesCSV(list, now)
		case len(list) == 0:
			fmt.Fprintln(e.Stdout, "no outages")
		default:
			for _, o := range list {
				fmt.Fprintf(e.Stdout, "%-12s %s to %-22s %4d entries waited, complete again %s\n             %s\n",
					o.Dependency, app.Moment(o.From), outageEnd(o, now), o.Waited, cmp.Or(app.Moment(o.CompleteAt), "-"), o.Cause)
			}
		}
		return nil
	})
}

func (e *env) outagesCSV(list []audit.Outage, now time.Time) error {
	w := csv.NewWriter(e.Stdout)
	rows := [][]string{{"dependency", "from", "to", "cause", "entries_waited", "complete_at"}}
	for _, o := range list {
		rows = append(rows, []string{o.Dependency, app.Moment(o.From), outageEnd(o, now), o.Cause, strconv.Itoa(o.Waited), cmp.Or(app.Moment(o.CompleteAt), "-")})
	}
	return w.WriteAll(rows)
}

func outageEnd(o audit.Outage, now time.Time) string {
	switch {
	case !o.To.IsZero():
		return app.Moment(o.To)
	case o.Dependency == audit.UnknownDependency:
		return "unknown"
	case o.Lasts(now):
		return "now"
	}
	return "unknown (relay stopped after " + app.Moment(o.Seen) + ")"
}
