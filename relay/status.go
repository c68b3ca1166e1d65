package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
)

// status is what the ledger knows of how things stand.
type status struct {
	Cursor            string        `json:"cursor,omitempty"`
	ReconciledThrough string        `json:"reconciled_through,omitempty"`
	FullAt            string        `json:"full_at,omitempty"`
	LastComplete      string        `json:"last_complete,omitempty"`
	Resume            *audit.Resume `json:"resume,omitempty"`
	Dead              int           `json:"dead"`
	Deferred          int           `json:"deferred"`
	Waiting           int           `json:"announced_waiting"`
	Missing           []string      `json:"announced_missing,omitempty"`
}

func (e *env) statusCommand() *cli.Command {
	return &cli.Command{
		Name:   "status",
		Usage:  "tell from the ledger how far the log has been delivered, and what is missing",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print it as JSON"}},
		Action: e.withLedger(config.NeedLedger, e.status),
	}
}

func (e *env) status(ctx context.Context, c *cli.Command, a *app.App) error {
	m, err := a.Store.Marks(ctx)
	if err != nil {
		return err
	}
	s := status{Cursor: app.Moment(m.Cursor), ReconciledThrough: app.Moment(m.ReconciledThrough), FullAt: app.Moment(m.FullAt),
		LastComplete: app.Moment(m.Completed), Resume: m.Resume}
	if s.Dead, s.Deferred, err = a.Store.UndeliveredCounts(ctx); err != nil {
		return err
	}
	list, err := a.Store.Announced(ctx)
	if err != nil {
		return err
	}
	for _, an := range list {
		if time.Since(an.At) < announce.MissingAfter {
			s.Waiting++
			continue
		}
		s.Missing = append(s.Missing, an.ID)
	}
	if c.Bool("json") {
		return printJSON(e.Stdout, s)
	}
	for _, line := range [][2]string{
		{"delivered up to", s.Cursor}, {"reconciled through", s.ReconciledThrough}, {"last full reconcile", s.FullAt},
		{"last complete pass", s.LastComplete},
	} {
		fmt.Fprintf(e.Stdout, "%-20s %s\n", line[0], app.OrDash(line[1]))
	}
	fmt.Fprintf(e.Stdout, "%-20s %d\n%-20s %d\n", "dead letters", s.Dead, "deferred", s.Deferred)
	fmt.Fprintf(e.Stdout, "%-20s %d waited for, %d missing\n", "announced ids", s.Waiting, len(s.Missing))
	for _, id := range s.Missing {
		fmt.Fprintf(e.Stdout, "  missing: %s\n", id)
	}
	if s.Resume != nil {
		fmt.Fprintln(e.Stdout, "a reconcile was cut short; the next one goes on where it stopped")
	}
	return nil
}
