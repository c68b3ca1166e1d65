package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

func (e *env) onceCommand() *cli.Command {
	return &cli.Command{
		Name:  "once",
		Usage: "make one pass and exit",
		Description: "Reads 25 hours back from where the last complete pass began, once a day everything, and delivers\n" +
			"what is not in the ledger.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "full", Usage: "read all that Kong still has"},
			&cli.StringFlag{Name: "since", Usage: "read from this time on (RFC 3339, a date, Unix seconds, or a span such as 36h); moves no mark"},
			&cli.StringFlag{Name: "until", Usage: "read up to this time, without it; moves no mark"},
			&cli.BoolFlag{Name: "dry-run", Usage: "read and count; deliver and record nothing"},
			&cli.BoolFlag{Name: "json", Usage: "print the summary as JSON"},
		},
		Action: e.once,
	}
}

func (e *env) once(ctx context.Context, c *cli.Command) (err error) {
	s, err := e.settings(c, needKong|needLedger|needDestination)
	if err != nil {
		return err
	}
	req := pipeline.Request{Kind: pipeline.Reconcile, Full: c.Bool("full"), DryRun: c.Bool("dry-run"), Wait: s.LeaseWait}
	if c.IsSet("since") || c.IsSet("until") {
		if req.Full {
			return usagef("--full reads everything: leave out --since and --until, or --full")
		}
		req.Kind = pipeline.Window
		if req.Since, req.Until, err = window(c.String("since"), c.String("until"), time.Now()); err != nil {
			return err
		}
	}
	if e.getenv("GOMAXPROCS") == "" {
		// A pass waits for others most of the time. One processor does more than AWS's
		// quota takes, and goroutines that need not wake up threads cost a tenth less.
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	a, err := open(ctx, s, e.logger(s), e.stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	if err := a.bind(ctx); err != nil {
		return err
	}
	var observer pipeline.Observer
	if isTerminal(e.stderr) && !c.Bool("json") {
		bar := newProgress(e.stderr)
		defer bar.end()
		observer.Progress = bar.show
	}
	sum, err := a.pipeline(observer).Run(ctx, req)
	if c.Bool("json") {
		if jsonErr := json.NewEncoder(e.stdout).Encode(sum); jsonErr != nil {
			return errors.Join(err, jsonErr)
		}
	} else if err == nil || sum.Pages > 0 {
		printSummary(e.stdout, sum, req.DryRun)
	}
	return explain(err)
}

// explain adds what a person can do about an error of a pass.
func explain(err error) error {
	switch {
	case errors.Is(err, audit.ErrLeaseHeld):
		return audit.WithHint(err, "another relay works on this source and destination and was told that there is something to look for; "+
			"wait for it, give --lease-wait more time, or stop it")
	case errors.Is(err, audit.ErrLeaseLost):
		return audit.WithHint(err, "another relay took over, or the ledger could not be reached for longer than the lease; run again, nothing is lost")
	case errors.Is(err, pipeline.ErrUnavailable):
		return audit.WithHint(err, "nothing is lost and nothing was made a dead letter: run again once the destination answers (relay check tells)")
	}
	return err
}

// window reads the bounds of a span of time, Unix seconds.
func window(since, until string, now time.Time) (from, to int64, err error) {
	if since != "" {
		if from, err = parseMoment(since, now); err != nil {
			return 0, 0, usagef("--since is %q: %v", since, err)
		}
	}
	if until != "" {
		if to, err = parseMoment(until, now); err != nil {
			return 0, 0, usagef("--until is %q: %v", until, err)
		}
	}
	if to != 0 && from >= to {
		return 0, 0, usagef("--since is not before --until")
	}
	return from, to, nil
}

// parseMoment reads a time: RFC 3339, a date, Unix seconds, or a span back from now.
func parseMoment(text string, now time.Time) (int64, error) {
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d).Unix(), nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		return n, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil && t.Unix() > 0 {
			return t.Unix(), nil
		}
	}
	return 0, errors.New("expected RFC 3339 such as 2026-01-31T12:00:00Z, a date, Unix seconds, or a span back from now such as 36h")
}

// printSummary writes a summary for a person.
func printSummary(w io.Writer, s pipeline.Summary, dryRun bool) {
	fmt.Fprintf(w, "%s in %.1f s: %s, %d read, %d new", kindName(s), s.Seconds, plural(s.Pages, "page"), s.Read, s.New)
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
		{s.Own, "left out: the relay's own reads"},
		{s.Ahead, "ahead of Kong's clock, delivered all the same"},
		{s.Repeated, "may be repeated at the destination: the answer to their put was lost"},
		{s.Retries, "puts made again"},
	} {
		if more.n > 0 {
			fmt.Fprintf(w, "  %d %s\n", more.n, more.what)
		}
	}
	if s.Dead > 0 {
		fmt.Fprintln(w, "  relay dead list shows why entries were refused")
	}
	if !s.Complete && s.Left != "" {
		fmt.Fprintf(w, "  left for the next pass: %s\n", s.Left)
	}
}

func kindName(s pipeline.Summary) string {
	if s.Kind == pipeline.Reconcile && s.Full {
		return "full reconcile"
	}
	return string(s.Kind)
}

// progress shows on a terminal how a long pass goes on.
type progress struct{ bar *progressbar.ProgressBar }

func newProgress(w io.Writer) *progress {
	return &progress{progressbar.NewOptions(-1, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription("reading"),
		progressbar.OptionSpinnerType(14), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())}
}

func (p *progress) show(s pipeline.Summary) {
	p.bar.Describe(fmt.Sprintf("%d read, %d new, %d delivered", s.Read, s.New, s.Delivered))
	_ = p.bar.Set(s.Read) // a terminal that is gone is no reason to stop
}

func (p *progress) end() { _ = p.bar.Finish() }
