package health

import (
	"slices"
	"sync"
	"time"
)

const (
	// FreshnessStep is the time that one point of a [Freshness] stands for.
	FreshnessStep = 10 * time.Minute
	// FreshnessKept is how long a point is kept.
	FreshnessKept = 24 * time.Hour
)

// Freshness is how far delivery was behind in the course of the last day. The zero value
// is ready to use. It is safe for concurrent use.
type Freshness struct {
	mu     sync.Mutex
	points []Behind // oldest first
}

// Behind is the longest time that an entry waited within a step.
type Behind struct {
	At   time.Time // when the step began
	Wait time.Duration
}

// Add notes how far delivery is behind now.
func (f *Freshness) Add(now time.Time, behind time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := now.Truncate(FreshnessStep).UTC()
	if n := len(f.points); n == 0 || !f.points[n-1].At.Equal(at) {
		f.points = append(f.points, Behind{At: at})
	}
	last := &f.points[len(f.points)-1]
	last.Wait = max(last.Wait, behind.Round(time.Second))
	for len(f.points) > 0 && now.Sub(f.points[0].At) > FreshnessKept {
		f.points = f.points[1:]
	}
}

// List returns the points, oldest first.
func (f *Freshness) List() []Behind {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.points)
}
