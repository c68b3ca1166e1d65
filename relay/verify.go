package main

import (
	"context"
	"errors"
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
		Description: `Reads all that Kong holds, or what --since and --until leave of it, and looks up what became of each
entry. Then it asks the destination whether each delivered entry is there.

A difference is an entry that Kong holds and
  - that the ledger does not know, although a pass has read past it, or should have by now; or
  - that the ledger calls delivered, and the destination does not hold; or
  - that was rejected permanently, or deferred, until it is delivered or somebody drops it with a
    reason (relay dead). Without --since and --until, so are those that Kong no longer holds.
On the way, and no difference: what a pass that is under way still comes to. Not due yet, and no
difference: what is newer than the last pass, for as long as --schedule. Both are a difference while
passes fail.

CloudWatch Logs is read back by FilterLogEvents, which needs logs:FilterLogEvents on the log group and costs
nothing: up to 5 calls a second of 1 MB each, so that a million entries take some minutes. What was filed
under the time of its put, because it was older than 14 days, is found there. A file is read, and with it
what logrotate has left beside it. Of CloudTrail Lake the event data store is asked that --event-data-store
names; it bills each query by the bytes that it scans, which --since and --until bound. Standard output
and pipes cannot be asked.

A destination shows some time after it has accepted an event: within a minute CloudWatch Logs, within minutes
CloudTrail Lake. If something looks missing, verify waits for --grace from when it had read the ledger, and asks
again before it says so.

Dropped entries are counted, and are no difference. Nor are events that are there more than once, which is
what a crash or a lost answer may lead to, events that neither Kong nor the ledger knows, which another
gateway may have sent, and lines that are no events or are torn. --strict makes differences of such events,
and of signatures of Kong that do not verify.

A log that shows none of the newest entries that were recorded, although Kong must still have them, is
another Kong's, or was emptied: verifying fails.

Exit codes: 0 no difference, or all of them repaired; 3 a difference; 1 verifying failed.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "verify from this time on (RFC 3339, a date, Unix seconds, or a span such as 36h); by default all that Kong holds"},
			&cli.StringFlag{Name: "until", Usage: "verify up to this time, without it; by default up to now"},
			&cli.BoolFlag{Name: "repair", Usage: "put what is missing; entries that the ledger calls delivered and the destination lacks are put again"},
			&cli.BoolFlag{Name: "strict", Usage: "call it a difference as well if events are repeated, unknown or unreadable, or signatures do not verify"},
			&cli.DurationFlag{Name: "grace", HideDefault: true, Usage: "within which the destination may not show what it has accepted (default 1m, CloudTrail Lake 15m, a file 0s)"},
			&cli.BoolFlag{Name: "json", Usage: "print the report as one JSON object, with up to 10000 ids of each kind"},
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
		grace = -1 // what suits the destination
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
