package main

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// A relay that reads through the route that rings it does not ring itself.
func TestBellOwnReads(t *testing.T) {
	b := newBell(0)
	b.own = func(id string) bool { return strings.HasPrefix(id, "own") }
	b.ring([]string{"own1", "own2"}, time.Now())
	if b.due() || b.until() >= 0 {
		t.Error("own reads ask for a pull")
	}
	if seen, lost := b.settle(); len(seen) != 2 || len(lost) != 0 {
		t.Errorf("seen %q, lost %q", seen, lost)
	}
	b.ring([]string{"own3", "other"}, time.Now())
	if !b.due() {
		t.Error("another id does not")
	}
	if waiting, _ := b.counts(); waiting != 1 {
		t.Errorf("%d waiting", waiting)
	}
	b.ring(nil, time.Now())
	b.last = time.Time{}
	b.ring([]string{"own4"}, time.Now())
	if !b.due() {
		t.Error("a look that was asked for is not made")
	}
}

// pulls are the times after a ring at which the bell asks for a pull, for half a minute.
func pulls(b *bell, now *time.Time) (list []time.Duration) {
	begin := *now
	for now.Sub(begin) < 31*time.Second {
		d := b.until()
		if d < 0 {
			break
		}
		*now = now.Add(d)
		if b.due() {
			list = append(list, now.Sub(begin))
		}
	}
	return list
}

// A row appears some tenths of a second after its answer, mostly.
func TestBellEchoes(t *testing.T) {
	now := time.Now()
	b := newBell(30 * time.Millisecond)
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
	b.ring([]string{"a"}, now)
	check("an id", pulls(b, &now), 21, 29*time.Second)
	b.show([]audit.Entry{{RequestID: "a"}})
	if b.until() >= 0 {
		t.Error("an id that was seen is looked for")
	}
	now = now.Add(time.Minute)
	b.ring(nil, now)
	check("no id", pulls(b, &now), 15, 5*time.Second)

	// A ring that nobody could attend to for long still gets its first pull.
	now = now.Add(time.Minute)
	b.ring(nil, now)
	now = now.Add(time.Minute)
	b.show([]audit.Entry{{RequestID: "x"}})
	if !b.due() {
		t.Error("a look is lost")
	}
}

// What was announced is measured up to its delivery, once.
func TestBellDelivered(t *testing.T) {
	b := newBell(0)
	now := time.Now()
	b.now = func() time.Time { return now }
	b.ring([]string{"a", "b"}, now)
	entries := []audit.Entry{{RequestID: "a"}, {RequestID: "c"}}
	if ago := b.delivered(entries); len(ago) != 0 {
		t.Errorf("%v before it was seen", ago)
	}
	b.show(entries)
	now = now.Add(time.Second)
	if ago := b.delivered(entries); !slices.Equal(ago, []time.Duration{time.Second}) {
		t.Errorf("%v", ago)
	}
	if ago := b.delivered(entries); len(ago) != 0 {
		t.Errorf("%v again", ago)
	}
}

// metric returns the value of a line of /metrics.
func metric(tb testing.TB, ops, name string) string {
	tb.Helper()
	resp, err := http.Get(ops + "/metrics")
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "kong_cloudtrail_relay_"+name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Rows that come late, or with the time of a clock that is behind, are found by
// what announced them: a trigger with their id, or one that names none.
func TestLateRowsAreLookedFor(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		late   time.Duration // after the trigger
		behind time.Duration // its timestamp
		blind  bool
		within time.Duration
	}{
		{"at once", 0, 0, false, 5 * time.Second},
		{"clock behind", 200 * time.Millisecond, 20 * time.Second, false, 20 * time.Second},
		{"far behind", 200 * time.Millisecond, 4 * time.Minute, false, 20 * time.Second},
		{"late, no id", 3 * time.Second, 0, true, 10 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
			now := time.Now()
			w.kong.AddSeq(kongtest.Generate(1000, 3, kongtest.Mix{Plain: true, From: now.Add(-time.Hour), To: now}))
			_, url, ops := w.serve()
			eventually(t, 20*time.Second, "the first pass", func() bool { return w.trail.Counts().Distinct == 1000 })
			// A tail that looks far back has just been made.
			ringOnce(t, url)
			eventually(t, 10*time.Second, "a tail", func() bool { return metric(t, ops, `passes_total{kind="tail",outcome="complete"}`) != "" })
			id := strings.Repeat("x", 32)
			if tc.blind {
				ringOnce(t, url)
			} else {
				ringOnce(t, url, id)
			}
			timer := time.NewTimer(tc.late)
			<-timer.C
			row := rows("x", 1, func(int) time.Time { return time.Now().Add(-tc.behind) })[0]
			row.RequestID = id
			w.kong.Add(row)
			eventually(t, tc.within, "the late row", func() bool { return w.trail.Times(id) == 1 })
			if n := metric(t, ops, "announced_missing_total"); n != "0" {
				t.Errorf("%s ids counted as missing", n)
			}
			if n := metric(t, ops, "announced_to_accepted_seconds_count"); !tc.blind && n != "1" {
				t.Errorf("%s measured", n)
			}
			// A ring that was held up, about what has been delivered.
			if tc.blind {
				return
			}
			ringOnce(t, url, id)
			if n := metric(t, ops, "announced_waiting"); n != "0" {
				t.Errorf("%s ids are waited for, which were delivered", n)
			}
		})
	}
}

// A ledger that is emptied between two passes keeps no trigger from being taken:
// the pass that it brings begins the new one.
func TestTriggerAfterTheLedgerWasEmptied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	_, url, ops := w.serve()
	eventually(t, 20*time.Second, "the first pass", func() bool { return metric(t, ops, `passes_total{kind="reconcile",outcome="complete"}`) == "1" })
	w.flush()
	id := adminRequest(t, w)
	ringOnce(t, url, id)
	eventually(t, 10*time.Second, "the event", func() bool { return w.trail.Times(id) == 1 })
}
