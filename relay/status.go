package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/audit"
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
		Action: e.withStore(needLedger, e.status),
	}
}

func (e *env) status(ctx context.Context, c *cli.Command, a *app) error {
	m, err := a.store.Marks(ctx)
	if err != nil {
		return err
	}
	s := status{Cursor: moment(m.Cursor), ReconciledThrough: moment(m.ReconciledThrough), FullAt: moment(m.FullAt),
		LastComplete: moment(m.Completed), Resume: m.Resume}
	if s.Dead, s.Deferred, err = a.store.UndeliveredCounts(ctx); err != nil {
		return err
	}
	list, err := a.store.Announced(ctx)
	if err != nil {
		return err
	}
	for _, an := range list {
		if time.Since(an.At) < missingAfter {
			s.Waiting++
			continue
		}
		s.Missing = append(s.Missing, an.ID)
	}
	if c.Bool("json") {
		return json.NewEncoder(e.stdout).Encode(s)
	}
	for _, line := range [][2]string{
		{"delivered up to", s.Cursor}, {"reconciled through", s.ReconciledThrough}, {"last full reconcile", s.FullAt},
		{"last complete pass", s.LastComplete},
	} {
		fmt.Fprintf(e.stdout, "%-20s %s\n", line[0], orDash(line[1]))
	}
	fmt.Fprintf(e.stdout, "%-20s %d\n%-20s %d\n", "dead letters", s.Dead, "deferred", s.Deferred)
	fmt.Fprintf(e.stdout, "%-20s %d waited for, %d missing\n", "announced ids", s.Waiting, len(s.Missing))
	for _, id := range s.Missing {
		fmt.Fprintf(e.stdout, "  missing: %s\n", id)
	}
	if s.Resume != nil {
		fmt.Fprintln(e.stdout, "a reconcile was cut short; the next one goes on where it stopped")
	}
	return nil
}

// moment is a mark as a person reads it.
func moment(second int64) string {
	if second == 0 {
		return ""
	}
	return time.Unix(second, 0).UTC().Format(time.RFC3339)
}
