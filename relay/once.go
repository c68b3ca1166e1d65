package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

func (e *env) onceCommand() *cli.Command {
	return &cli.Command{
		Name:  "once",
		Usage: "make one pass and exit",
		Description: "Reads from 25 hours before the last complete reconcile, or once a day everything, and delivers what is\n" +
			"not in the ledger.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "full", Usage: "read all that Kong still has"},
			&cli.StringFlag{Name: "since", Usage: "read from this time on (RFC 3339, a date, Unix seconds, or a span such as 36h); moves no mark"},
			&cli.StringFlag{Name: "until", Usage: "read what is older than this time; moves no mark"},
			&cli.BoolFlag{Name: "dry-run", Usage: "read and count; deliver and record nothing"},
			&cli.BoolFlag{Name: "json", Usage: "print the summary as JSON"},
		},
		Action: e.once,
	}
}

func passRequest(c *cli.Command) (req pipeline.Request, err error) {
	req = pipeline.Request{Kind: audit.Reconcile, Full: c.Bool("full")}
	if c.String("since") == "" && c.String("until") == "" {
		return req, nil
	}
	if req.Full {
		return req, config.Usagef("--full reads everything: leave out --since and --until, or --full")
	}
	req.Kind = audit.Window
	req.Since, req.Until, err = config.Window(c.String("since"), c.String("until"), time.Now())
	return req, err
}

func (e *env) once(ctx context.Context, c *cli.Command) error {
	req, err := passRequest(c)
	if err != nil {
		return err
	}
	req.RequestRerun, req.DryRun = true, c.Bool("dry-run")
	return e.with(ctx, c, config.NeedPass, func(a *app.App) error {
		if a.Settings.Destination == config.ToCloudTrail {
			defer useOneProcessor(e.Getenv)()
		}
		if err := a.Bind(ctx); err != nil {
			return err
		}
		defer e.reopenOnHangup(a)()
		req.Wait = a.Settings.LeaseWait
		defer sayStop(ctx, a.Log)()
		show, end := e.progress(c, app.LogProgress(a.Log))
		sum, err := a.Pipeline(pipeline.Observer{Progress: show}, nil).Run(ctx, req)
		end()
		out := e.out(a.Settings)
		if c.Bool("json") {
			err = errors.Join(err, printJSON(out, shownSummary{sum, app.UnixTime(sum.Through)}))
		} else if err == nil || sum.Pages > 0 {
			printSummary(out, sum, req.DryRun)
		}
		if sum.Dead > 0 {
			fmt.Fprintf(e.Stderr, "relay: warning: %s rejected permanently: relay dead list shows why, relay verify finds a difference until they are delivered or dropped\n",
				app.Plural(sum.Dead, "entry"))
		}
		if left := sum.Deferred + sum.StillDeferred; err == nil && left > 0 {
			err = audit.WithHint(fmt.Errorf("%s not delivered, and deferred: %s", app.Plural(left, "entry"), cmp.Or(sum.Reason, "the destination did not accept them")),
				"look at what the destination says, then run again: the next pass puts them first; relay dead list shows them")
		}
		return app.Explain(err)
	})
}

// shownSummary is a summary as --json prints it: Through is RFC 3339.
type shownSummary struct {
	pipeline.Summary
	Through time.Time `json:"through,omitzero"`
}

func printSummary(w io.Writer, s pipeline.Summary, dryRun bool) {
	kind := string(s.Kind)
	if s.Kind == audit.Reconcile && s.Full {
		kind = "full reconcile"
	}
	fmt.Fprintf(w, "%s in %.1f s: %s, %d read, %d new", kind, s.Seconds, app.Plural(s.Pages, "page"), s.Read, s.New)
	if dryRun {
		fmt.Fprintln(w, " (dry run: nothing was delivered)")
		return
	}
	fmt.Fprintf(w, ", %d delivered, %d failed, %d dead\n", s.Delivered, s.Failed, s.Dead)
	for _, more := range []struct {
		n    int
		what string
	}{
		{s.Deferred, "deferred: their retries are exhausted, the next pass tries them first"},
		{s.StillDeferred, "still deferred: they were put again, without success"},
		{s.Own, "left out: the relay's own reads"},
		{s.Ahead, "ahead of Kong's clock, delivered all the same"},
		{s.Repeated, "may be repeated at the destination: the answer to their put was lost, or the ledger forgot them"},
		{s.RetriedCalls, "puts made again"},
	} {
		if more.n > 0 {
			fmt.Fprintf(w, "  %d %s\n", more.n, more.what)
		}
	}
	if !s.Complete && s.Left != "" {
		fmt.Fprintf(w, "  left for the next pass: %s\n", s.Left)
	}
}

// progress returns show, which displays the progress of a long pass, and end, which removes
// the display. With --json, or if standard error is not a terminal, show is otherwise.
func (e *env) progress(c *cli.Command, otherwise func(pipeline.Summary)) (show func(pipeline.Summary), end func()) {
	if !app.IsTerminal(e.Stderr) || c.Bool("json") {
		return otherwise, func() {}
	}
	bar := progressbar.NewOptions(-1, progressbar.OptionSetWriter(e.Stderr), progressbar.OptionSetDescription("reading"),
		progressbar.OptionSpinnerType(14), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	return func(s pipeline.Summary) {
		bar.Describe(fmt.Sprintf("%d read (%.0f a second), %d new, %d delivered", s.Read, float64(s.Read)/max(s.Seconds, 0.1), s.New, s.Delivered))
		_ = bar.Set(s.Read) // the pass goes on without a terminal
	}, func() { _ = bar.Finish() }
}

func (e *env) tapCommand() *cli.Command {
	return &cli.Command{
		Name:  "tap",
		Usage: "print the events that a pass would deliver now; deliver nothing, move nothing",
		Description: "Reads what relay once would read and prints a line of JSON for each entry that is not in the ledger, as the\n" +
			"destination would get it, after redaction. Standard error says how many there were.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "full", Usage: "read all that Kong still has"},
			&cli.StringFlag{Name: "since", Usage: "read from this time on (RFC 3339, a date, Unix seconds, or a span such as 36h)"},
			&cli.StringFlag{Name: "until", Usage: "read what is older than this time"},
		},
		Action: e.tap,
	}
}

func (e *env) tap(ctx context.Context, c *cli.Command) error {
	req, err := passRequest(c)
	if err != nil {
		return err
	}
	req.DryRun = true
	return e.with(ctx, c, config.NeedKong|config.NeedLedger, func(a *app.App) error {
		encode := a.Encoder()
		var failed error
		sum, err := a.Pipeline(pipeline.Observer{New: func(entry *audit.Entry) {
			if _, err := e.Stdout.Write(append(encode(nil, entry), '\n')); err != nil && failed == nil {
				failed = err
			}
		}}, nil).Run(ctx, req)
		fmt.Fprintf(e.Stderr, "%d read, %d would be delivered; nothing was\n", sum.Read, sum.New)
		return app.Explain(errors.Join(a.ExplainLedger(err), failed))
	})
}
