package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisledger"
)

// undelivered is what relay dead list --json shows, by id.
func (w *world) undelivered() map[string]audit.Undelivered {
	w.tb.Helper()
	out, _ := w.says(exitOK, "dead", "list", "--json")
	found := map[string]audit.Undelivered{}
	for line := range strings.Lines(out) {
		var l shownUndelivered
		if err := decode([]byte(line), &l); err != nil {
			w.tb.Fatalf("%v:\n%s", err, out)
		}
		found[l.Entry.ID] = l.undelivered()
	}
	return found
}

// undelivered returns what was printed as the ledger has it.
func (s shownUndelivered) undelivered() audit.Undelivered {
	u := s.Undelivered
	for _, o := range []audit.Outcome{audit.Dead, audit.Deferred} {
		if o.String() == s.Outcome {
			u.Outcome = o
		}
	}
	return u
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	id := func(i int) string { return fmt.Sprintf("d%031d", i) }
	refused := map[string]string{id(10): "InvalidData", id(20): "InvalidData", id(30): "FieldTooLong", id(40): "FieldTooLong", id(50): "FieldTooLong"}
	for _, ledger := range []string{"redis", "bolt"} {
		t.Run(ledger, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{Faults: cloudtrailtest.Faults{IDs: refused}})
			w.askable()
			if ledger == "bolt" {
				w.env = append(w.env, "RELAY_LEDGER=bolt:"+t.TempDir()+"/ledger.db")
			}
			begin := time.Now().Truncate(time.Second)
			at := begin.Add(-time.Hour)
			w.kong.Add(rows("d", 100, func(i int) time.Time { return at.Add(time.Duration(i) * time.Second) })...)
			if s := w.once(); s.Dead != 5 || s.Delivered != 95 || !s.Complete {
				t.Errorf("%+v", s)
			}
			// One bad entry stops no other, and none is put again by itself.
			if s := w.once(); s.New+s.Dead != 0 {
				t.Errorf("%+v", s)
			}

			r := w.verify(exitDifference)
			expectIDs(t, "dead", r.Dead, id(10), id(20), id(30), id(40), id(50))
			if r.DeadLetters != 5 || r.Delivered != 95 || r.Destination.Confirmed != 95 {
				t.Errorf("%+v", r)
			}

			list, _ := w.says(exitOK, "dead", "list")
			contains(t, list, "AGE", "REASON", id(10), "InvalidData", id(50), "FieldTooLong", "GET /services")
			shown, _ := w.says(exitOK, "dead", "show", id(10))
			var l shownUndelivered
			if err := decode([]byte(shown), &l); err != nil || l.Entry.ID != id(10) || l.Code != "InvalidData" || l.Outcome != "dead" ||
				l.Reason == "" || l.Entry.Path != "/services" || l.Since.Before(begin) || l.Since.After(time.Now()) {
				t.Errorf("%+v: %v", l, err)
			}
			_, said := w.says(exitFailed, "dead", "show", "nothing")
			contains(t, said, "relay dead list")

			// Refused again: it stays, with one try more and the same age.
			out, _ := w.says(exitFailed, "dead", "retry", id(10))
			contains(t, out, id(10), "InvalidData", "0 delivered, 1 not delivered")
			if again := w.undelivered()[id(10)]; again.Tries != l.Tries+1 || !again.Since.Equal(l.Since) || again.Outcome != audit.Dead {
				t.Errorf("got %+v after %+v", again, l)
			}

			// Wrong usage changes nothing.
			for _, args := range [][]string{{"retry"}, {"retry", "--all", id(10)}, {"drop", "--all"}, {"drop", "--all", "--reason", ""}, {"drop", "--reason", "x"}} {
				w.says(exitUsage, append([]string{"dead"}, args...)...)
			}
			w.says(exitFailed, "dead", "retry", "nothing")
			if n := len(w.undelivered()); n != 5 {
				t.Fatalf("%d dead letters", n)
			}

			w.trail.SetFaults(cloudtrailtest.Faults{})
			out, _ = w.says(exitOK, "dead", "retry", id(10))
			contains(t, out, "1 delivered, 0 not delivered")
			out, _ = w.says(exitOK, "dead", "retry", "--code", "FieldTooLong", "--older-than", "100h")
			contains(t, out, "0 delivered")
			out, _ = w.says(exitOK, "dead", "retry", "--code", "FieldTooLong", "--older-than", "1ms")
			contains(t, out, "3 delivered, 0 not delivered")
			if left := w.undelivered(); len(left) != 1 || left[id(20)].Code != "InvalidData" {
				t.Errorf("left: %+v", left)
			}
			out, said = w.says(exitOK, "dead", "drop", id(20), "--reason", "a test entry")
			contains(t, out, "1 dropped")
			contains(t, said, "a test entry", id(20))
			list, _ = w.says(exitOK, "dead", "list")
			contains(t, list, "no dead letters")

			// What was dropped is not put again, and what was retried not twice.
			if s := w.once("--full"); s.New+s.Delivered+s.Dead != 0 {
				t.Errorf("%+v", s)
			}
			r = w.verify(exitOK)
			expectIDs(t, "dropped", r.Dropped, id(20))
			if r.Delivered != 99 || r.Dead.Count != 0 || w.trail.Counts().Repeats != 0 || w.trail.Times(id(20)) != 0 {
				t.Errorf("%+v; %+v", r, w.trail.Counts())
			}
		})
	}
}

// leaseCheck is a standard output that notes who holds the lease while it is written to.
type leaseCheck struct {
	output
	ledger *redisledger.Ledger
	held   time.Duration // how long the lease lasted at most
	err    error
}

// Write implements [io.Writer].
func (c *leaseCheck) Write(p []byte) (int, error) {
	left, err := c.ledger.LeaseLeft(context.Background())
	c.held, c.err = max(c.held, left), errors.Join(c.err, err)
	return c.output.Write(p)
}

// A retry prints once the lease is free: a pager that nobody reads would hold up all passes.
// The environment is that of this process, so the test does not run beside others.
func TestDeadRetryPrintsWithoutTheLease(t *testing.T) {
	id := fmt.Sprintf("d%031d", 1)
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{Faults: cloudtrailtest.Faults{IDs: map[string]string{id: "InvalidData"}}})
	w.kong.Add(rows("d", 10, func(int) time.Time { return time.Now().Add(-time.Hour) })...)
	w.once()
	for _, entry := range w.env { // AWS's SDK reads it
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
	stdout, stderr := &leaseCheck{ledger: w.ledger()}, &output{}
	if code := run(t.Context(), nil, []string{"relay", "dead", "retry", "--all"}, stdout, stderr); code != exitFailed {
		t.Errorf("ended with %d: %s", code, stderr)
	}
	contains(t, stdout.String(), id+": InvalidData", "0 delivered, 1 not delivered")
	if stdout.held > 0 || stdout.err != nil {
		t.Errorf("the lease lasted %s while the list was printed, %v", stdout.held, stdout.err)
	}
}

// TestDeadLettersInMetrics has a relay find dead letters, and its successor show them.
func TestDeadLettersInMetrics(t *testing.T) {
	t.Parallel()
	id := func(i int) string { return fmt.Sprintf("d%031d", i) }
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{Faults: cloudtrailtest.Faults{
		IDs: map[string]string{id(3): "InvalidData", id(4): "InvalidData"}}})
	w.kong.Add(rows("d", 10, func(int) time.Time { return time.Now().Add(-time.Hour) })...)
	shows := func(ops string, want map[string]string) func() bool {
		return func() bool {
			for name, value := range want {
				if metric(t, ops, name) != value {
					return false
				}
			}
			return true
		}
	}
	first, _, ops := w.serve()
	eventually(t, patient, "metrics of the first relay", shows(ops, map[string]string{
		`entries_total{outcome="dead"}`: "2", `entries_total{outcome="delivered"}`: "8", "dead_letters": "2",
	}))
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.wait(t)
	if n := len(w.undelivered()); n != 2 {
		t.Errorf("%d dead letters survived", n)
	}
	_, _, ops = w.serve("RELAY_LEASE_WAIT=15s")
	eventually(t, patient, "metrics of the second relay", shows(ops, map[string]string{"dead_letters": "2"}))
	w.trail.SetFaults(cloudtrailtest.Faults{})
	w.says(exitOK, "dead", "retry", "--all") // beside a relay that runs
	eventually(t, patient, "metrics after the retry", shows(ops, map[string]string{"dead_letters": "0"}))
	w.expectAll(0)
}

// A dead letter of which the ledger's copy is broken hides no other: it is listed and named, and can be
// given up, after which a repair reads it from Kong again.
func TestUnreadableDeadLetter(t *testing.T) {
	t.Parallel()
	id := func(i int) string { return fmt.Sprintf("d%031d", i) }
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{
		Faults: cloudtrailtest.Faults{IDs: map[string]string{id(1): "InvalidData", id(2): "InvalidData"}},
	})
	w.askable()
	begin := time.Now().Truncate(time.Second)
	w.kong.Add(rows("d", 10, func(int) time.Time { return time.Now().Add(-time.Hour) })...)
	w.once()
	w.breakUndelivered(id(1))

	r := w.verify(exitDifference)
	expectIDs(t, "unreadable", r.Unreadable, id(1))
	expectIDs(t, "dead", r.Dead, id(1), id(2))
	list, _ := w.says(exitOK, "dead", "list")
	contains(t, list, id(1), "unreadable", id(2), "InvalidData")
	_, said := w.says(exitFailed, "dead", "show", id(1))
	contains(t, said, "decoding undelivered entry "+id(1), "relay dead drop")
	if strings.Contains(said, "REDIS_HOST") {
		t.Errorf("the ledger's server is blamed: %s", said)
	}
	if found := w.undelivered(); len(found) != 2 || found[id(1)].Outcome != audit.Dead || found[id(1)].Since.Before(begin) || found[id(1)].Since.After(time.Now()) {
		t.Errorf("%+v", found)
	}
	said, _ = w.says(exitFailed, "status")
	contains(t, said, "1 unreadable", "1 InvalidData")
	if s := w.once(); !s.Complete {
		t.Errorf("%+v", s)
	}

	w.trail.SetFaults(cloudtrailtest.Faults{})
	out, _ := w.says(exitFailed, "dead", "retry", "--all")
	contains(t, out, id(1)+": unreadable", "1 delivered, 1 not delivered")
	out, _ = w.says(exitOK, "dead", "drop", id(1), "--reason", "broken")
	contains(t, out, "1 dropped")
	if r := w.verify(exitDifference); r.Unreadable.Count != 0 || r.Unstored.Count != 1 {
		t.Errorf("%+v", r)
	}
	w.verify(exitOK, "--repair")
	w.verify(exitOK)
}

// A deferred entry of which the ledger's copy is broken does not keep the others from being put.
func TestUnreadableDeferredEntry(t *testing.T) {
	t.Parallel()
	id := func(i int) string { return fmt.Sprintf("d%031d", i) }
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{
		Faults: cloudtrailtest.Faults{IDs: map[string]string{id(1): "Throttling", id(2): "Throttling"}},
	})
	w.kong.Add(rows("d", 10, func(int) time.Time { return time.Now().Add(-time.Hour) })...)
	w.says(exitFailed, "once", "--retry-for", "1s")
	w.breakUndelivered(id(1))
	w.trail.SetFaults(cloudtrailtest.Faults{})
	_, said := w.says(exitFailed, "once")
	contains(t, said, "deferred entry cannot be put again", id(1), "relay dead drop", "deferred: decoding undelivered entry "+id(1))
	if w.trail.Times(id(2)) != 1 || w.trail.Times(id(1)) != 0 {
		t.Errorf("%d and %d times", w.trail.Times(id(2)), w.trail.Times(id(1)))
	}
	w.says(exitOK, "dead", "drop", id(1), "--reason", "broken")
	w.says(exitOK, "once")
}

// breakUndelivered cuts short what the ledger keeps of an undelivered entry.
func (w *world) breakUndelivered(id string) {
	w.tb.Helper()
	client := redis.NewClient(&redis.Options{Addr: w.redis.Addr})
	defer func() { _ = client.Close() }()
	keys, err := client.Keys(w.tb.Context(), "relay:*:undelivered").Result()
	if err != nil || len(keys) != 1 {
		w.tb.Fatal(keys, err)
	}
	if err := client.HSet(w.tb.Context(), keys[0], id, `{"entry":{"pay`).Err(); err != nil {
		w.tb.Fatal(err)
	}
}
