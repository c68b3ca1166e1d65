package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/lake"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

func (e *env) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "compare Kong's log with the ledger, and with CloudTrail Lake where it can be asked",
		Description: `Reads all that Kong holds, or what --since and --until leave of it, and looks up what became of each
entry. With --event-data-store it asks CloudTrail Lake as well whether each delivered entry has arrived.

A difference is an entry that Kong holds and
  - that the ledger does not know, although a pass has read past it, or should have by now; or
  - that the ledger calls delivered, and CloudTrail Lake does not hold.
Not due yet, and no difference: what is newer than the last pass, for as long as --schedule; and what
CloudTrail Lake does not show yet and is younger than --grace, as it takes minutes to show what it has
accepted. An old entry that was delivered only just now looks missing there: wait after a first or a
full pass before verifying, and above all before --repair.

Dead letters, deferred and dropped entries are accounted for: they are counted, and no difference. Nor are
events that are there more than once, which is what a crash or a lost answer may lead to, and events that
neither Kong nor the ledger knows, which another gateway on the same channel may have sent. --strict makes
differences of all of these, and of signatures of Kong that do not verify.

Exit codes: 0 no difference, or all of them repaired; 3 a difference; 1 verifying failed.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "verify from this time on (RFC 3339, a date, Unix seconds, or a span such as 36h); by default all that Kong holds"},
			&cli.StringFlag{Name: "until", Usage: "verify up to this time, without it; by default up to now"},
			&cli.BoolFlag{Name: "repair", Usage: "put what is missing; entries that the ledger calls delivered and CloudTrail Lake lacks are put again"},
			&cli.BoolFlag{Name: "strict", Usage: "call it a difference as well if entries are dead, deferred, repeated or unknown, or their signatures do not verify"},
			&cli.DurationFlag{Name: "grace", Value: 15 * time.Minute, Usage: "age from which CloudTrail Lake must show an entry"},
			&cli.BoolFlag{Name: "json", Usage: "print the report as one JSON object, with up to 10000 ids of each kind"},
		},
		Action: e.verify,
	}
}

func (e *env) verify(ctx context.Context, c *cli.Command) (err error) {
	s, err := e.settings(c, needKong|needLedger|needDestination)
	if err != nil {
		return err
	}
	if c.Duration("grace") < 0 {
		return usagef("--grace is %s: it cannot be negative", c.Duration("grace"))
	}
	v := &verification{slice: sliceEntries, grace: int64(c.Duration("grace") / time.Second), reach: int64((s.Schedule + overdueAfter) / time.Second)}
	if v.since, v.until, err = window(c.String("since"), c.String("until"), time.Now()); err != nil {
		return err
	}
	a, err := open(ctx, s, e.logger(s), e.stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	if err := a.bind(ctx); err != nil {
		return err
	}
	v.app, v.passes = a, a.pipeline(pipeline.Observer{})
	if v.lake, err = a.openLake(ctx); err != nil {
		return err
	}
	if isTerminal(e.stderr) && !c.Bool("json") {
		bar := newProgress(e.stderr)
		defer bar.end()
		v.progress = bar.show
	}
	if err := v.run(ctx); err != nil {
		return explainVerify(err)
	}
	var repairErr error
	if c.Bool("repair") && v.report.differs() {
		repairErr = v.repair(ctx)
	}
	if err := v.print(e, c.Bool("json"), c.Bool("strict")); err != nil {
		return err
	}
	switch {
	case repairErr != nil:
		return explain(repairErr)
	case v.report.difference(c.Bool("strict")):
		return exitCode(exitDifference)
	}
	return nil
}

// openLake returns nil where the destination is not to be asked.
func (a *app) openLake(ctx context.Context) (*lake.Lake, error) {
	s := a.settings
	if s.EventDataStore == "" || s.Destination != ToCloudTrail {
		return nil, nil
	}
	cfg, err := s.AWSConfig(ctx)
	if err != nil {
		return nil, err
	}
	return lake.New(lake.Options{Config: cfg, EventDataStore: s.EventDataStore, EventSource: eventSource})
}

// eventSource is that of every event.
const eventSource = "kong-gateway"

// explainVerify adds what a person can do about an error.
func explainVerify(err error) error {
	if errors.Is(err, audit.ErrLedgerReplaced) {
		return audit.Settings(err, "the ledger was emptied or replaced meanwhile: let a full pass go through (relay once --full), then verify again")
	}
	return err
}

const (
	maxNames   = 10_000 // ids kept of each kind
	maxPrinted = 20     // ids printed for a person
)

// finding is a kind of entries, with the ids of the first of them.
type finding struct {
	Count int      `json:"count"`
	IDs   []string `json:"ids,omitempty"`
}

func (f *finding) add(id string) {
	f.Count++
	f.name(id)
}

func (f *finding) name(id string) {
	if len(f.IDs) < maxNames {
		f.IDs = append(f.IDs, string([]byte(id))) // the id of an entry shares its page's memory
	}
}

// verifyReport is what verify found.
type verifyReport struct {
	OK    bool   `json:"ok"` // no difference, or none left
	Since string `json:"since,omitempty"`
	Until string `json:"until"`
	Order string `json:"order"`
	// CompleteThrough: every entry that Kong showed and that is not newer has been
	// delivered, or has been refused, dropped or left out as the counts say.
	CompleteThrough string  `json:"complete_through,omitempty"`
	Seconds         float64 `json:"seconds"`

	// Of the entries that Kong holds, by what the ledger knows of them.
	Entries   int     `json:"entries"`
	Delivered int     `json:"delivered"`
	Own       int     `json:"own"`
	NotDue    int     `json:"not_due"`
	Missing   finding `json:"missing"`
	Dead      finding `json:"dead"`
	Deferred  finding `json:"deferred"`
	Dropped   finding `json:"dropped"`

	SignatureFailed finding `json:"signature_failed"`

	// Letters are all that the ledger keeps, of any time.
	DeadLetters     int `json:"dead_letters"`
	DeferredEntries int `json:"deferred_entries"`

	Destination *destinationReport `json:"destination,omitempty"` // nil: not asked
	Repaired    *repairReport      `json:"repaired,omitempty"`
}

// destinationReport is what the destination holds of those.
type destinationReport struct {
	Confirmed int     `json:"confirmed"` // in Kong, and there
	NotDue    int     `json:"not_due"`   // delivered, and too young to be seen
	Missing   finding `json:"missing"`   // delivered, and not there
	Repeated  finding `json:"repeated"`  // there more than once
	Extra     int     `json:"extra"`     // events there beyond the first of their id
	Gone      int     `json:"gone"`      // there and in the ledger, and no longer in Kong, or not yet when it was read
	Unknown   finding `json:"unknown"`   // there, and neither in Kong nor in the ledger
}

// repairReport is what was done about differences.
type repairReport struct {
	Delivered int    `json:"delivered"`
	Dead      int    `json:"dead"`
	Deferred  int    `json:"deferred"`
	Failed    int    `json:"failed"`
	Healed    bool   `json:"healed"` // no difference is left
	Error     string `json:"error,omitempty"`
}

// differs tells whether something is missing that is not healed.
func (r *verifyReport) differs() bool {
	if r.Repaired != nil {
		return !r.Repaired.Healed
	}
	return r.Missing.Count > 0 || r.Destination != nil && r.Destination.Missing.Count > 0
}

func (r *verifyReport) difference(strict bool) bool {
	d := r.differs()
	if strict {
		d = d || r.Dead.Count+r.Deferred.Count+r.SignatureFailed.Count+r.DeadLetters+r.DeferredEntries > 0 ||
			r.Destination != nil && r.Destination.Repeated.Count+r.Destination.Unknown.Count > 0
	}
	return d
}

func (v *verification) print(e *env, asJSON, strict bool) error {
	r := &v.report
	r.OK = !r.difference(strict)
	if asJSON {
		return json.NewEncoder(e.stdout).Encode(r)
	}
	p := &verifyPrinter{w: e.stdout}
	p.report(r)
	if p.err != nil {
		return fmt.Errorf("printing the report: %w", p.err)
	}
	return nil
}
