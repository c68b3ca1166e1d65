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
	Grace        time.Duration // how long the destination may take to show what it has accepted; negative for its usual time
	Repair       bool          // put what is missing
	Strict       bool          // repeated, unknown and unreadable events, and wrong signatures, are differences
	Slice        int           // entries that the destination is asked for at once; by default as many as it can be
	Progress     func(pipeline.Summary)
}

// Run compares, and repairs if Options.Repair is set. If only the repair fails, Run returns
// both the report and the error.
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

// MaxIDs is how many ids of each kind a report holds.
const MaxIDs = 10_000

const maxPrinted = 20 // ids printed for a person

// Finding is how many entries something was found of, and the ids of the first of them.
type Finding struct {
	Count int      `json:"count"`
	IDs   []string `json:"ids,omitempty"`
}

func (f *Finding) add(id string) {
	f.Count++
	f.name(id)
}

func (f *Finding) name(id string) {
	if len(f.IDs) < MaxIDs {
		f.IDs = append(f.IDs, string([]byte(id))) // the id of an entry shares its page's memory
	}
}

// Report is what verify found.
type Report struct {
	OK    bool   `json:"ok"` // no difference, or none left
	Since string `json:"since,omitempty"`
	Until string `json:"until"`
	Order string `json:"order"`
	// CompleteThrough is the time, RFC 3339, up to which every entry that Kong showed has been
	// delivered, dropped or left out as an own read. It is empty if Kong showed no entry.
	CompleteThrough string  `json:"complete_through,omitempty"`
	Seconds         float64 `json:"seconds"`

	// Failing is why nothing is being delivered. NotDue and OnTheWay are a difference then.
	Failing string `json:"failing,omitempty"`

	// Of the entries that Kong holds, by what the ledger knows of them.
	Entries   int     `json:"entries"`
	Delivered int     `json:"delivered"`
	Own       int     `json:"own"`
	NotDue    int     `json:"not_due"`
	OnTheWay  int     `json:"on_the_way"` // not in the ledger, but the pass under way may still read them
	Missing   Finding `json:"missing"`
	Dead      Finding `json:"dead"`
	Deferred  Finding `json:"deferred"`
	Dropped   Finding `json:"dropped"`

	// Unstored are dead or deferred entries whose copy the ledger has lost.
	Unstored Finding `json:"unstored"`

	// Unreadable are dead or deferred entries, of any time, whose copy in the ledger cannot be
	// decoded.
	Unreadable Finding `json:"unreadable_entries"`

	SignatureFailed Finding `json:"signature_failed"`

	// WithoutChanges are writes that were delivered, with --objects, before Kong had shown what
	// they changed.
	WithoutChanges Finding `json:"without_changes"`

	// All undelivered entries that the ledger keeps, of any time.
	DeadLetters     int `json:"dead_letters"`
	DeferredEntries int `json:"deferred_entries"`

	Destination *DestinationReport `json:"destination,omitempty"` // nil: not asked
	Repaired    *RepairReport      `json:"repaired,omitempty"`

	window bool // not all of the log was verified
}

// DestinationReport compares Kong and the ledger with what the destination holds.
type DestinationReport struct {
	Name      string  `json:"name"`
	Confirmed int     `json:"confirmed"` // in Kong, delivered according to the ledger, and there
	NotDue    int     `json:"not_due"`   // delivered according to the ledger, and so young that they need not be shown yet
	Missing   Finding `json:"missing"`   // delivered according to the ledger, and not there
	Repeated  Finding `json:"repeated"`  // there more than once
	Extra     int     `json:"extra"`     // events there beyond the first of their id
	Gone      int     `json:"gone"`      // there and in the ledger; Kong has deleted the row, or wrote it after it was read
	Unknown   Finding `json:"unknown"`   // there, and neither in Kong nor in the ledger
	// Unreadable is the number of lines that are not a relay's events, torn lines included.
	Unreadable int `json:"unreadable"`
}

// RepairReport is the outcome of a repair.
type RepairReport struct {
	Delivered int    `json:"delivered"`
	Dead      int    `json:"dead"`
	Deferred  int    `json:"deferred"`
	Failed    int    `json:"failed"`
	Repaired  bool   `json:"healed"` // nothing is left to repair; scripts know the key by this name
	Error     string `json:"error,omitempty"`
}

// differs reports whether something is missing, and was not repaired.
func (r *Report) differs() bool {
	if r.Repaired != nil {
		return !r.Repaired.Repaired
	}
	return r.Missing.Count+r.Unstored.Count > 0 || r.Destination != nil && r.Destination.Missing.Count > 0
}

// undelivered returns how many dead letters and deferred entries there are: those that Kong
// holds, and unless only a window was verified, also those that it has deleted.
func (r *Report) undelivered() int {
	n := r.Dead.Count + r.Deferred.Count
	if !r.window {
		n = max(n, r.DeadLetters+r.DeferredEntries)
	}
	return n
}

// waiting returns how many entries wait because nothing is being delivered.
func (r *Report) waiting() int {
	if r.Failing == "" {
		return 0
	}
	return r.NotDue + r.OnTheWay
}

// difference reports whether there is a difference, for which relay verify exits with 3.
func (r *Report) difference(strict bool) bool {
	d := r.differs() || r.undelivered() > 0 || r.waiting() > 0
	if strict {
		d = d || r.SignatureFailed.Count > 0 ||
			r.Destination != nil && r.Destination.Repeated.Count+r.Destination.Unknown.Count+r.Destination.Unreadable > 0
	}
	return d
}
