package daemon

import (
	"slices"
	"testing"
	"time"
)

// A canary read is made when nothing has been recorded for some time, and what is
// recorded meanwhile proves as much as its own entry does.
func TestRecording(t *testing.T) {
	start := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	r := newRecording(15*time.Minute, start)
	at := func(minutes float64) time.Time { return start.Add(time.Duration(minutes * float64(time.Minute))) }
	if r.due(at(14)) || !r.due(at(15)) {
		t.Error("the first canary read is not due after 15 minutes")
	}
	if r.seen(at(14), at(-20)) || !r.seen(at(14), at(13)) || r.due(at(27)) || !r.due(at(28)) {
		t.Error("an old entry proves something, or a fresh one does not")
	}
	r.made(at(28), "canary")
	if r.due(at(28.9)) {
		t.Error("another canary read while the first one is looked for")
	}
	if canary, others := r.missing(at(28.5), []string{"a", "canary"}); !canary || !slices.Equal(others, []string{"a"}) {
		t.Errorf("missing: canary %v, others %v", canary, others)
	}
	if r.seen(at(29), at(28.4)) || !r.seen(at(29), at(28.6)) {
		t.Error("what is older than the loss proves that Kong records again")
	}
	r.made(at(50), "again")
	if !r.seen(at(50.2), at(50.1)) {
		t.Error("a fresh entry proves nothing")
	}
	r.made(at(51), "later")
	if canary, others := r.missing(at(51.5), []string{"again"}); canary || len(others) > 0 {
		t.Errorf("a canary read that Kong ignores is missed although it records others: canary %v, others %v", canary, others)
	}
	if canary, others := r.missing(at(200), []string{"later"}); !canary || len(others) > 0 {
		t.Errorf("a canary read that was noted late and never recorded: canary %v, others %v", canary, others)
	}
	off := newRecording(0, start)
	if off.due(at(10_000)) {
		t.Error("off, and due")
	}
}

// That Kong keeps entries for too short a time is said once, and of fresh entries only.
func TestRetention(t *testing.T) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	r := newRecording(0, now)
	for _, c := range []struct {
		age, retention time.Duration
		say            bool
		kept           time.Duration
	}{
		{48 * time.Hour, time.Hour, false, time.Hour}, // from before the setting was raised, perhaps
		{time.Minute, 30 * 24 * time.Hour, false, 30 * 24 * time.Hour},
		{time.Hour / 2, time.Hour, false, 30 * 24 * time.Hour}, // older than what was seen
		{time.Second, 2 * time.Hour, true, 2 * time.Hour},
		{0, time.Hour, false, time.Hour},
		{0, 48 * time.Hour, false, 48 * time.Hour},
		{0, time.Hour, true, time.Hour},
	} {
		at := now.Add(-c.age)
		if say := r.keeps(now, at, c.retention); say != c.say || r.kept() != c.kept {
			t.Errorf("%+v: %v, kept %s", c, say, r.kept())
		}
		r.seen(now, at)
	}
}
