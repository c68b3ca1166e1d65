package emf

import (
	"maps"
	"slices"
	"sync"
)

// byHistory are the metrics of changes, by how much is known of the state before.
var byHistory = map[string]string{"exact": ChangesExact, "approximate": ChangesApproximate, "unavailable": ChangesUnavailable}

// Changes counts what events tell of changes, between one line of metrics and the next.
// It is safe for concurrent use, and its zero value has counted nothing.
type Changes struct {
	mu     sync.Mutex
	counts map[string]int // by metric
}

// Changed counts a change with such a history.
func (c *Changes) Changed(history string) { c.add(byHistory[history], 1) }

// Late counts changes that came after their event.
func (c *Changes) Late(n int) { c.add(ChangesLate, n) }

func (c *Changes) add(name string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]int{}
	}
	c.counts[name] += n
}

// Take returns the counts as metrics, and begins at zero again.
func (c *Changes) Take() []Metric {
	c.mu.Lock()
	defer c.mu.Unlock()
	var metrics []Metric
	for _, name := range append(slices.Sorted(maps.Values(byHistory)), ChangesLate) {
		metrics = append(metrics, Count(name, c.counts[name]))
	}
	c.counts = nil
	return metrics
}
