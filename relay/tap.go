package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

func (e *env) tapCommand() *cli.Command {
	return &cli.Command{
		Name:  "tap",
		Usage: "print the events that a pass would deliver now; deliver nothing, move nothing",
		Description: "Reads what relay once would read and prints a line of JSON for each entry that is not in the ledger, as the\n" +
			"destination would get it, after redaction. Standard error says how many there were.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "full", Usage: "read all that Kong still has"},
			&cli.StringFlag{Name: "since", Usage: "read from this time on (RFC 3339, a date, Unix seconds, or a span such as 36h)"},
			&cli.StringFlag{Name: "until", Usage: "read up to this time, without it"},
		},
		Action: e.tap,
	}
}

func (e *env) tap(ctx context.Context, c *cli.Command) (err error) {
	req := pipeline.Request{Kind: audit.Reconcile, Full: c.Bool("full"), DryRun: true}
	if c.IsSet("since") || c.IsSet("until") {
		if req.Full {
			return config.Usagef("--full reads everything: leave out --since and --until, or --full")
		}
		req.Kind = audit.Window
		if req.Since, req.Until, err = config.Window(c.String("since"), c.String("until"), time.Now()); err != nil {
			return err
		}
	}
	s, err := e.settings(c, config.NeedKong|config.NeedLedger|config.NeedDestination)
	if err != nil {
		return err
	}
	a, err := app.OpenSource(ctx, s, e.Logger(s))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	encode, err := a.Encoder()
	if err != nil {
		return err
	}
	var failed error
	sum, err := a.Pipeline(pipeline.Observer{New: func(entry *audit.Entry) {
		if _, err := e.Stdout.Write(append(encode(nil, entry), '\n')); err != nil && failed == nil {
			failed = err
		}
	}}, nil).Run(ctx, req)
	fmt.Fprintf(e.Stderr, "%d read, %d would be delivered; nothing was\n", sum.Read, sum.New)
	return app.Explain(errors.Join(a.ExplainLedger(err), failed))
}
