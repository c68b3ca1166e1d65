// Package verify compares what Kong holds with the ledger, and with the destination
// where it can be asked, and repairs differences.
package verify

import (
	"cmp"
	"context"
	"time"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// Options say what to verify.
type Options struct {
	Since, Until int64         // Unix seconds, Until excluded; 0 leaves a side open
	Grace        time.Duration // within which the destination may not show what it has accepted; negative: its usual one
	Repair       bool          // put what is missing
	Strict       bool          // repeated and unknown events, and bad signatures, are differences
	Slice        int           // entries that the destination is asked for at once; default what suits it
	Progress     func(pipeline.Summary)
}

// Run compares, and repairs if that is asked for. If only the repair fails, it
// returns the report and the error.
func Run(ctx context.Context, a *app.App, o Options) (*Report, error) {
	v := &verification{
		Options: o, app: a, log: a.Pipeline(pipeline.Observer{}, nil).Reader(),
		reach: int64((a.Settings.Schedule + overdueAfter) / time.Second),
	}
	var err error
	if v.destination, err = a.Holdings(ctx); err != nil {
		return nil, err
	}
	if d := v.destination; d != nil {
		v.Slice = cmp.Or(v.Slice, d.Most)
		if v.Grace < 0 {
			v.Grace = d.Visible
		}
	}
	if err := v.run(ctx); audit.LedgerForgot(err) {
		return nil, audit.NewSettingsError(err, "let a full pass complete (relay once --full), as the ledger has forgotten what it knew, then verify again")
	} else if err != nil {
		return nil, err
	}
	if o.Repair && v.report.differs() {
		err = app.Explain(v.repair(ctx))
	}
	v.report.OK = !v.report.difference(o.Strict)
	return &v.report, err
}

const (
	maxNames   = 10_000 // ids kept of each kind
	maxPrinted = 20     // ids printed for a person
)

// Finding is a kind of entries, with the ids of the first of them.
type Finding struct {
	Count int      `json:"count"`
	IDs   []string `json:"ids,omitempty"`
}

func (f *Finding) add(id string) {
	f.Count++
	f.name(id)
}

func (f *Finding) name(id string) {
	if len(f.IDs) < maxNames {
		f.IDs = append(f.IDs, string([]byte(id))) // the id of an entry shares its page's memory
	}
}

// Report is what verify found.
type Report struct {
	OK    bool   `json:"ok"` // no difference, or none left
	Since string `json:"since,omitempty"`
	Until string `json:"until"`
	Order string `json:"order"`
	// CompleteThrough: every entry that Kong showed and that is not newer has been
	// delivered, or has been refused, dropped or left out as the counts say. Empty if Kong
	// showed no entry at all.
	CompleteThrough string  `json:"complete_through,omitempty"`
	Seconds         float64 `json:"seconds"`

	// Failing is why nothing is being delivered. NotDue and OnTheWay are a difference then.
	Failing string `json:"failing,omitempty"`

	// Of the entries that Kong holds, by what the ledger knows of them.
	Entries   int     `json:"entries"`
	Delivered int     `json:"delivered"`
	Own       int     `json:"own"`
	NotDue    int     `json:"not_due"`
	OnTheWay  int     `json:"on_the_way"` // new to the ledger, and a pass is under way that delivers them
	Missing   Finding `json:"missing"`
	Dead      Finding `json:"dead"`
	Deferred  Finding `json:"deferred"`
	Dropped   Finding `json:"dropped"`

	// Unstored: dead or deferred, and the ledger has lost the stored entry.
	Unstored Finding `json:"unstored"`

	// Unreadable: dead or deferred, of any time, and the ledger's copy cannot be decoded.
	Unreadable Finding `json:"unreadable_entries"`

	SignatureFailed Finding `json:"signature_failed"`

	// WithoutChanges: delivered, with --objects, before Kong had shown what was changed.
	WithoutChanges Finding `json:"without_changes"`

	// Everything that the ledger keeps, of any time.
	DeadLetters     int `json:"dead_letters"`
	DeferredEntries int `json:"deferred_entries"`

	Destination *DestinationReport `json:"destination,omitempty"` // nil: not asked
	Repaired    *RepairReport      `json:"repaired,omitempty"`

	window bool // not all of the log was verified
}

// DestinationReport is what the destination holds of those.
type DestinationReport struct {
	Name      string  `json:"name"`
	Confirmed int     `json:"confirmed"` // in Kong, and there
	NotDue    int     `json:"not_due"`   // delivered, and too young to be shown
	Missing   Finding `json:"missing"`   // delivered, and not there
	Repeated  Finding `json:"repeated"`  // there more than once
	Extra     int     `json:"extra"`     // events there beyond the first of their id
	Gone      int     `json:"gone"`      // there and in the ledger, and no longer in Kong, or not yet when it was read
	Unknown   Finding `json:"unknown"`   // there, and neither in Kong nor in the ledger
	// Unreadable counts lines that are no events of a relay, torn ones among them.
	Unreadable int `json:"unreadable"`
}

// RepairReport is the outcome of a repair.
type RepairReport struct {
	Delivered int    `json:"delivered"`
	Dead      int    `json:"dead"`
	Deferred  int    `json:"deferred"`
	Failed    int    `json:"failed"`
	Repaired  bool   `json:"healed"` // nothing is left to repair; the key is the one that scripts know
	Error     string `json:"error,omitempty"`
}

// differs reports whether something is missing that was not repaired.
func (r *Report) differs() bool {
	if r.Repaired != nil {
		return !r.Repaired.Repaired
	}
	return r.Missing.Count+r.Unstored.Count > 0 || r.Destination != nil && r.Destination.Missing.Count > 0
}

// undelivered returns how many dead letters and deferred entries there are: what Kong
// holds of them, and those of other times unless only a window was verified.
func (r *Report) undelivered() int {
	n := r.Dead.Count + r.Deferred.Count
	if !r.window {
		n = max(n, r.DeadLetters+r.DeferredEntries)
	}
	return n
}

// waiting returns how many entries wait only because nothing is being delivered.
func (r *Report) waiting() int {
	if r.Failing == "" {
		return 0
	}
	return r.NotDue + r.OnTheWay
}

// difference reports whether the exit code must say that there is one.
func (r *Report) difference(strict bool) bool {
	d := r.differs() || r.undelivered() > 0 || r.waiting() > 0
	if strict {
		d = d || r.SignatureFailed.Count > 0 ||
			r.Destination != nil && r.Destination.Repeated.Count+r.Destination.Unknown.Count+r.Destination.Unreadable > 0
	}
	return d
}
