package app

import (
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/health"
)

// How long a call may take follows from those before it, in both directions.
func TestPace(t *testing.T) {
	p := &pace{usual: map[health.Dependency]time.Duration{}}
	expect := func(what string, least, most time.Duration) {
		t.Helper()
		if slow := p.slow(health.Kong); slow < least || slow > most {
			t.Errorf("%s: %s, want %s to %s", what, slow, least, most)
		}
	}
	expect("at the start", slowLeast, slowLeast)
	for range 5 {
		p.answered(health.Kong, 5*time.Second)
	}
	expect("a Kong that takes 5 s for a page", 13*time.Second, 15*time.Second)
	p.answered(health.Kong, time.Hour)
	expect("a call that took an hour", slowMost, slowMost)
	for range 120 {
		p.answered(health.Kong, 10*time.Millisecond)
	}
	expect("a Kong that is quick again", slowLeast, slowLeast)
	p.answered(health.Destination, 20*time.Second)
	expect("another dependency", slowLeast, slowLeast)
}
