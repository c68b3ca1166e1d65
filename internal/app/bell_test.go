package app

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// A relay that reads through the route that rings it does not ring itself.
func TestBellOwnReads(t *testing.T) {
	b := NewBell(0)
	b.Own = func(id string) bool { return strings.HasPrefix(id, "own") }
	b.Ring([]string{"own1", "own2"}, time.Now())
	if b.Due() || b.Until() >= 0 {
		t.Error("own reads ask for a pull")
	}
	if seen, lost := b.Settle(); len(seen) != 2 || len(lost) != 0 {
		t.Errorf("seen %q, lost %q", seen, lost)
	}
	b.Ring([]string{"own3", "other"}, time.Now())
	if !b.Due() {
		t.Error("another id does not")
	}
	if waiting, _ := b.Counts(); waiting != 1 {
		t.Errorf("%d waiting", waiting)
	}
	b.Ring(nil, time.Now())
	b.last = time.Time{}
	b.Ring([]string{"own4"}, time.Now())
	if !b.Due() {
		t.Error("a look that was asked for is not made")
	}
}

// pulls are the times after a ring at which the bell asks for a pull, for half a minute.
func pulls(b *Bell, now *time.Time) (list []time.Duration) {
	begin := *now
	for now.Sub(begin) < 31*time.Second {
		d := b.Until()
		if d < 0 {
			break
		}
		*now = now.Add(d)
		if b.Due() {
			list = append(list, now.Sub(begin))
		}
	}
	return list
}

// A row appears some tenths of a second after its answer, mostly.
func TestBellEchoes(t *testing.T) {
	now := time.Now()
	b := NewBell(30 * time.Millisecond)
	b.now = func() time.Time { return now }
	check := func(what string, list []time.Duration, most int, last time.Duration) {
		t.Helper()
		for i, at := range list {
			if i > 0 && at < time.Second && at-list[i-1] > quickEcho {
				t.Errorf("%s: %s after %s", what, at, list[i-1])
			}
		}
		if len(list) > most || len(list) == 0 || list[0] != 30*time.Millisecond || list[len(list)-1] < last {
			t.Errorf("%s: %v", what, list)
		}
	}
	b.Ring([]string{"a"}, now)
	check("an id", pulls(b, &now), 21, 29*time.Second)
	b.Show([]audit.Entry{{RequestID: "a"}})
	if b.Until() >= 0 {
		t.Error("an id that was seen is looked for")
	}
	now = now.Add(time.Minute)
	b.Ring(nil, now)
	check("no id", pulls(b, &now), 15, 5*time.Second)

	// A ring that nobody could attend to for long still gets its first pull.
	now = now.Add(time.Minute)
	b.Ring(nil, now)
	now = now.Add(time.Minute)
	b.Show([]audit.Entry{{RequestID: "x"}})
	if !b.Due() {
		t.Error("a look is lost")
	}
}

// What was announced is measured up to its delivery, once.
func TestBellDelivered(t *testing.T) {
	b := NewBell(0)
	now := time.Now()
	b.now = func() time.Time { return now }
	b.Ring([]string{"a", "b"}, now)
	entries := []audit.Entry{{RequestID: "a"}, {RequestID: "c"}}
	if ago := b.Delivered(entries); len(ago) != 0 {
		t.Errorf("%v before it was seen", ago)
	}
	b.Show(entries)
	now = now.Add(time.Second)
	if ago := b.Delivered(entries); !slices.Equal(ago, []time.Duration{time.Second}) {
		t.Errorf("%v", ago)
	}
	if ago := b.Delivered(entries); len(ago) != 0 {
		t.Errorf("%v again", ago)
	}
}
