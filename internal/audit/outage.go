package audit

import "time"

// Outage is a time in which a dependency of the relay failed.
type Outage struct {
	ID         string    `json:"id"` // of the outage, in the ledger
	Dependency string    `json:"dependency"`
	Cause      string    `json:"cause"`
	From       time.Time `json:"from"`
	// To is when the dependency answered again; zero while it fails. An outage without
	// an end that was last seen long ago is one whose relay was stopped during it.
	To   time.Time `json:"to,omitzero"`
	Seen time.Time `json:"seen"` // when it was last known to continue, or its end
	// CompleteAt is when everything that was recorded during the outage had an outcome;
	// zero before that.
	CompleteAt time.Time `json:"complete_at,omitzero"`
	// Waited counts the entries from before the end of the outage that were delivered
	// after it.
	Waited int `json:"entries_waited"`
}

// outageStale is how long after it was last seen an outage without an end counts as over:
// its relay was stopped.
const outageStale = 2 * time.Minute

// UnknownDependency is the dependency of an outage of which the ledger's record is broken. Its end
// is not known either.
const UnknownDependency = "unknown"

// Lasts reports whether the outage goes on, as far as that is known.
func (o *Outage) Lasts(now time.Time) bool {
	return o.To.IsZero() && now.Sub(o.Seen) < outageStale && o.Dependency != UnknownDependency
}
