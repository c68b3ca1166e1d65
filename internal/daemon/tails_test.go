package daemon

import (
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// A single tail is a line of the log at once. Many are one line in 30 seconds, which
// leaves none out.
func TestTailsAreSummedUp(t *testing.T) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	var list tails
	lines, delivered := 0, 0
	for i := range 6000 { // ten minutes, ten a second
		if now = now.Add(100 * time.Millisecond); i < 5000 {
			list.add(pipeline.Summary{Counts: delivery.Counts{Delivered: 2}})
		}
		if count, sum := list.take(now); count > 0 {
			lines++
			delivered += sum.Delivered
		}
	}
	if lines < 17 || lines > 19 || delivered != 10_000 {
		t.Errorf("%d lines tell of %d entries", lines, delivered)
	}
	list.add(pipeline.Summary{})
	if count, _ := list.take(now.Add(time.Minute)); count != 1 {
		t.Error("a single tail is not said at once")
	}
}
