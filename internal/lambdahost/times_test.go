package lambdahost

import (
	"testing"
	"time"
)

// An invocation keeps time for metrics and for the next one, and begins no pass shortly
// before the end.
func TestTimes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ budget, work, begin time.Duration }{
		{4 * time.Second, 3500 * time.Millisecond, 2500 * time.Millisecond},
		{16 * time.Second, 14 * time.Second, 10 * time.Second},
		{time.Minute, 55 * time.Second, 45 * time.Second},
		{15 * time.Minute, 15*time.Minute - 5*time.Second, 15*time.Minute - 15*time.Second},
	} {
		if work, begin := times(c.budget); work != c.work || begin != c.begin {
			t.Errorf("of %s: passes for %s, none begun after %s; want %s and %s", c.budget, work, begin, c.work, c.begin)
		}
	}
}
