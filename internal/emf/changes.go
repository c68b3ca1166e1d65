package emf

import "sync/atomic"

// Changes counts what events tell of changes, between one line of metrics and the next.
// It is safe for concurrent use, and its zero value has counted nothing.
type Changes struct{ exact, approximate, unavailable, late atomic.Int64 }

// Changed counts a change by its certainty: how much is known of the state before.
func (c *Changes) Changed(certainty string) {
	switch certainty {
	case "exact":
		c.exact.Add(1)
	case "approximate":
		c.approximate.Add(1)
	case "unavailable":
		c.unavailable.Add(1)
	}
}

// Late counts changes that came after their event.
func (c *Changes) Late(n int) { c.late.Add(int64(n)) }

// Take returns the counts as metrics, and begins at zero again.
func (c *Changes) Take() []Metric {
	return []Metric{
		Count(ChangesExact, c.exact.Swap(0)), Count(ChangesApproximate, c.approximate.Swap(0)),
		Count(ChangesUnavailable, c.unavailable.Swap(0)), Count(ChangesLate, c.late.Swap(0)),
	}
}
