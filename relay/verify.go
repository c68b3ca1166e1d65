package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/verify"
)

func (e *env) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "compare Kong's log with the ledger, and with the destination where it can be asked",
		Description: `Reads all that Kong holds, or the part between --since and --until, and looks up what became of each
entry. Then it asks the destination whether it holds each delivered entry.

A difference is
  - an entry that Kong holds and the ledger does not know, although a pass has read past it or should
    have by now;
  - an entry that the ledger calls delivered and the destination does not hold;
  - a dead letter or a deferred entry, until it is delivered, or dropped with a reason (relay dead);
    without --since and --until also if Kong has deleted the entry.
Entries that the pass under way may still read are on the way, and entries newer than the last pass are
not due yet, for as long as --schedule. Neither is a difference unless passes fail.

CloudWatch Logs is read by FilterLogEvents, which needs logs:FilterLogEvents on the log group and costs
nothing. It allows 5 calls a second of 1 MB each, so a million entries take some minutes. Events that were
filed under the time of their put, because their own was older than 14 days, are found there. A file is read
together with what logrotate has left beside it. CloudTrail Lake is asked by SQL over the event data store
that --event-data-store names, and bills each query by the bytes that it scans: --since and --until bound
them. Standard output and pipes cannot be asked.

A destination may show an event only some time after it has accepted it: CloudWatch Logs within a minute,
CloudTrail Lake within minutes. If something looks missing, verify asks again until --grace has passed since
it read the ledger, and only then says so.

Dropped entries are counted and are not a difference. Nor are repeated events, to which a crash or a lost
answer may lead; unknown events, which neither Kong nor the ledger knows and another gateway may have sent;
and lines that are not events, or are torn. With --strict, these are differences too, and so are Kong's
signatures that do not verify.

If the log shows none of the newest entries that were recorded, although Kong must still have them, it is
another Kong's or was emptied, and verify fails.

Exit codes: 0 no difference, or all of them repaired; 3 a difference; 1 verify failed.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "verify from this time on (RFC 3339, a date, Unix seconds, or a span such as 36h); by default all that Kong holds"},
			&cli.StringFlag{Name: "until", Usage: "verify what is older than this time; by default all up to now"},
			&cli.BoolFlag{Name: "repair", Usage: "put what is missing; entries that the ledger calls delivered and the destination lacks are put again"},
			&cli.BoolFlag{Name: "strict", Usage: "repeated, unknown and unreadable events, and signatures that do not verify, are differences too"},
			&cli.DurationFlag{Name: "grace", HideDefault: true, Usage: "how long the destination may take to show what it has accepted (default 1m, CloudTrail Lake 15m, a file 0s)"},
			&cli.BoolFlag{Name: "json", Usage: fmt.Sprintf("print the report as one JSON object, with up to %d ids of each kind", verify.MaxIDs)},
		},
		Action: e.verify,
	}
}

func (e *env) verify(ctx context.Context, c *cli.Command) (err error) {
	grace := c.Duration("grace")
	if grace < 0 {
		return config.Usagef("--grace is %s: it cannot be negative", grace)
	}
	if !c.IsSet("grace") {
		grace = -1 // the usual time of the destination
	}
	o := verify.Options{Grace: grace, Repair: c.Bool("repair"), Strict: c.Bool("strict")}
	if o.Since, o.Until, err = config.Window(c.String("since"), c.String("until"), time.Now()); err != nil {
		return err
	}
	return e.withLedger(ctx, c, config.NeedPass, func(a *app.App) error {
		if e.serving != nil {
			if !e.serving.verifying.TryLock() {
				return errors.New("another relay verify is under way")
			}
			defer e.serving.verifying.Unlock()
		}
		if err := a.Bind(ctx); err != nil {
			return err
		}
		show, end := e.progress(c, nil)
		o.Progress = show
		report, err := verify.Run(ctx, a, o)
		end()
		if report == nil {
			return err
		}
		out := e.Stdout
		if o.Repair {
			out = e.out(a.Settings)
		}
		if c.Bool("json") {
			err = errors.Join(err, printJSON(out, report))
		} else {
			err = errors.Join(err, report.Print(out))
		}
		if err == nil && !report.OK {
			return exitCode(exitDifference)
		}
		return err
	})
}
