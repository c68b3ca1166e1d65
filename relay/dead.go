package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// recordWithin bounds recording what has been put.
const recordWithin = 10 * time.Second

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
				Action: e.withStore(needLedger, e.deadList),
			},
			{
				Name: "show", Usage: "show one, whole, as JSON", ArgsUsage: "<id>",
				Action: e.withStore(needLedger, e.deadShow),
			},
			{
				Name: "retry", Usage: "put them again; waits for a pass that is being made", ArgsUsage: "[<id>…]", Flags: filter,
				Action: e.withStore(needLedger|needDestination, e.deadRetry),
			},
			{
				Name: "drop", Usage: "give them up: they are not put again", ArgsUsage: "[<id>…]",
				Flags:  append([]cli.Flag{&cli.StringFlag{Name: "reason", Usage: "why, for the log", Required: true}}, filter...),
				Action: e.withStore(needLedger, e.deadDrop),
			},
		},
	}
}

// withStore opens what a command needs and closes it after.
func (e *env) withStore(n need, f func(ctx context.Context, c *cli.Command, a *app) error) cli.ActionFunc {
	return func(ctx context.Context, c *cli.Command) (err error) {
		s, err := e.settings(c, n|needDestination) // the ledger's keys name the destination
		if err != nil {
			return err
		}
		a := &app{settings: s, log: e.logger(s)}
		if a.store, err = openStore(ctx, s); err != nil {
			return err
		}
		a.closers = append(a.closers, a.store.Close)
		defer func() { err = errors.Join(err, a.close()) }()
		if n&needDestination != 0 {
			if a.sink, err = a.openSink(ctx, e.stdout); err != nil {
				return err
			}
		}
		if _, err := a.store.Begin(ctx); err != nil {
			return a.reachable(err)
		}
		return f(ctx, c, a)
	}
}

func (e *env) deadList(ctx context.Context, c *cli.Command, a *app) error {
	if c.Bool("json") {
		out := json.NewEncoder(e.stdout)
		for l, err := range a.store.UndeliveredEntries(ctx) {
			if err != nil {
				return err
			}
			if err := out.Encode(l); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
	n := 0
	for l, err := range a.store.UndeliveredEntries(ctx) {
		if err != nil {
			return err
		}
		if n == 0 {
			fmt.Fprintln(w, "ID\tSTATE\tAGE\tTRIES\tREQUEST\tCODE\tREASON")
		}
		n++
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%.60q\t%s\t%.120q\n", l.Entry.ID, l.Outcome, time.Since(l.Since).Round(time.Second), l.Tries,
			l.Entry.Method+" "+l.Entry.Path, orDash(l.Code), l.Reason)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if n == 0 {
		fmt.Fprintln(e.stdout, "no dead letters, and nothing deferred")
	}
	return nil
}

func (e *env) deadShow(ctx context.Context, c *cli.Command, a *app) error {
	if c.Args().Len() != 1 {
		return usagef("relay dead show takes one id: relay dead list shows them")
	}
	l, found, err := a.store.UndeliveredEntry(ctx, c.Args().First())
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("no dead letter and nothing deferred has the id %q: relay dead list shows what there is", c.Args().First())
	}
	out := json.NewEncoder(e.stdout)
	out.SetIndent("", "  ")
	return out.Encode(l)
}

// chosen tells whether the command line says in one way which letters are meant.
func chosen(c *cli.Command) error {
	filtered := c.Bool("all") || c.IsSet("code") || c.IsSet("older-than")
	if filtered == c.Args().Present() {
		return usagef("name ids, or choose by --all, --code or --older-than: relay dead list shows them")
	}
	return nil
}

// selected calls f for the letters that arguments and filters name, a bounded
// number at a time.
func selected(ctx context.Context, c *cli.Command, a *app, f func([]audit.Undelivered) error) error {
	if ids := c.Args().Slice(); len(ids) > 0 {
		for _, id := range ids {
			l, found, err := a.store.UndeliveredEntry(ctx, id)
			if err != nil {
				return err
			}
			if !found {
				return fmt.Errorf("no dead letter and nothing deferred has the id %q: relay dead list shows what there is", id)
			}
			if err := f([]audit.Undelivered{l}); err != nil {
				return err
			}
		}
		return nil
	}
	const atOnce, bytesAtOnce = 100, 1 << 20
	var batch []audit.Undelivered
	size := 0
	for l, err := range a.store.UndeliveredEntries(ctx) {
		if err != nil {
			return err
		}
		if code := c.String("code"); code != "" && l.Code != code {
			continue
		}
		if time.Since(l.Since) < c.Duration("older-than") {
			continue
		}
		batch = append(batch, l)
		if size += l.Entry.Size(); len(batch) >= atOnce || size >= bytesAtOnce {
			if err := f(batch); err != nil {
				return err
			}
			batch, size = nil, 0
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return f(batch)
}

func (a *app) outcome(l audit.Undelivered, o audit.Outcome) audit.Record {
	keep := a.settings.RecordTTL
	if l.Entry.TTL >= 0 {
		keep = max(keep, time.Duration(l.Entry.TTL)*time.Second)
	}
	return audit.Record{ID: l.Entry.ID, Timestamp: l.Entry.Timestamp, Keep: keep, Outcome: o}
}

// deadRetry holds the lease, as a pass would put deferred entries at the same time.
func (e *env) deadRetry(ctx context.Context, c *cli.Command, a *app) error {
	if err := chosen(c); err != nil {
		return err
	}
	delivered, left := 0, 0
	err := a.pipeline(pipeline.Observer{}).Exclusive(ctx, a.settings.LeaseWait, func(ctx context.Context) error {
		return selected(ctx, c, a, func(letters []audit.Undelivered) error {
			refused, err := a.putAgain(ctx, letters)
			delivered += len(letters) - len(refused)
			left += len(refused)
			for _, l := range refused {
				fmt.Fprintf(e.stdout, "%s: %s %s\n", l.Entry.ID, orDash(l.Code), l.Reason)
			}
			return err
		})
	})
	fmt.Fprintf(e.stdout, "%d delivered, %d not delivered\n", delivered, left)
	if err == nil && left > 0 {
		return exitCode(exitFailed)
	}
	return explain(err)
}

// putAgain puts the entries of letters once and records what came of it. It returns
// the letters that are left, each with what the destination said last.
func (a *app) putAgain(ctx context.Context, letters []audit.Undelivered) (left []audit.Undelivered, err error) {
	entries := make([]audit.Entry, len(letters))
	for i := range letters {
		entries[i] = letters[i].Entry
	}
	verdicts, putErr := a.sink.Put(ctx, entries)
	var records []audit.Record
	accepted := 0
	for i, v := range verdicts {
		l := letters[i]
		switch v.Status {
		case audit.Accepted:
			accepted++
			records = append(records, a.outcome(l, audit.Delivered))
			continue
		case audit.Rejected:
			l.Outcome, l.Code, l.Reason = audit.Dead, v.Code, v.Reason
			l.Tries++
			r := a.outcome(l, audit.Dead)
			r.Undelivered = &l
			records = append(records, r)
		default: // what is recorded stays as it is
			l.Code, l.Reason = v.Code, v.Reason
		}
		left = append(left, l)
	}
	if len(records) == 0 {
		return left, putErr
	}
	// What was accepted is recorded, also if the command is told to stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordWithin)
	defer cancel()
	if err := a.store.Record(ctx, records); err != nil {
		return left, fmt.Errorf("%d entries were accepted but not recorded (they may be repeated): %w", accepted, err)
	}
	return left, putErr
}

func (e *env) deadDrop(ctx context.Context, c *cli.Command, a *app) error {
	reason := c.String("reason")
	if reason == "" {
		return usagef("--reason is empty: say why, it goes into the log")
	}
	if err := chosen(c); err != nil {
		return err
	}
	dropped := 0
	err := selected(ctx, c, a, func(letters []audit.Undelivered) error {
		var records []audit.Record
		for _, l := range letters {
			records = append(records, a.outcome(l, audit.Dropped))
		}
		if err := a.store.Record(ctx, records); err != nil {
			return err
		}
		for _, l := range letters {
			a.log.Warn("dead letter dropped", "id", l.Entry.ID, "code", l.Code, "reason", reason)
		}
		dropped += len(records)
		return nil
	})
	fmt.Fprintf(e.stdout, "%d dropped\n", dropped)
	return err
}
