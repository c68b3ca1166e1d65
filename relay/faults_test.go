package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// orders are the ways in which releases of Kong answer.
var orders = []struct {
	name string
	kong kongtest.Options
}{
	{"oldest first", kongtest.Options{}},
	{"filters that next forgets", kongtest.Options{BareNext: true}},
	{"after exclusive", kongtest.Options{AfterExclusive: true}},
	{"offsets by position", kongtest.Options{OffsetPosition: true}},
	{"newest first", kongtest.Options{Order: kongtest.NewestFirst}},
	{"no order", kongtest.Options{Order: kongtest.Unordered}},
}

// inEachOrder runs a test with each of them, in a world whose Kong records no reads.
func inEachOrder(t *testing.T, test func(t *testing.T, w *world)) {
	for _, tc := range orders {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.kong.SkipReads = true
			test(t, newWorld(t, tc.kong, cloudtrailtest.Options{}))
		})
	}
}

// row is a row of a moment.
func row(id string, at time.Time) auditlog.Row {
	return auditlog.Row{RequestID: id, RequestTimestamp: at.Unix(), ClientIP: "127.0.0.1", Method: "GET", Path: "/services", Status: 200}
}

func rows(prefix string, n int, at func(i int) time.Time) (list []auditlog.Row) {
	for i := range n {
		list = append(list, row(fmt.Sprintf("%s%0*d", prefix, 32-len(prefix), i), at(i)))
	}
	return list
}

func TestFaultsOfBothServices(t *testing.T) {
	t.Parallel()
	kong := kongtest.Options{SkipReads: true, Seed: 7, Chances: []kongtest.Chance{
		{P: 0.05, Fault: kongtest.Fault{Truncate: true}}, {P: 0.05, Fault: kongtest.Fault{Status: 500}},
	}}
	w := newWorld(t, kong, cloudtrailtest.Options{Faults: cloudtrailtest.Faults{
		Seed:   7,
		Calls:  map[string]float64{"InternalFailure": 0.05, "ThrottlingException": 0.05},
		Events: map[string]float64{"Throttling": 0.025, "InternalFailure": 0.025},
	}})
	w.kong.AddSeq(auditlog.Generate(20_000, 2, auditlog.Mix{}))
	s := w.once("--full")
	t.Logf("%+v", s)
	w.expectAll(0)
	if s.Delivered != 20_000 || s.Failed+s.Dead+s.Deferred > 0 {
		t.Errorf("%+v", s)
	}
}

func TestKillAtAnyMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true, Latency: 5 * time.Millisecond}, cloudtrailtest.Options{
		Faults: cloudtrailtest.Faults{Delay: 30 * time.Millisecond}})
	w.kong.AddSeq(auditlog.Generate(20_000, 3, auditlog.Mix{}))
	random := rand.New(rand.NewPCG(1, 2))
	kills := 4 // each costs the lease's 10 s
	if *faultsLong {
		kills = 30
	}
	for range kills {
		r := w.start([]string{"RELAY_LEASE_WAIT=2m"}, "once", "--json")
		before := w.trail.Counts().Events
		more := random.IntN(1500)
		// Killed at a moment that is counted in events, so that it falls into the work.
		eventually(t, patient, "events before the kill", func() bool {
			return w.trail.Counts().Events-before > more || r.ended()
		})
		if err := r.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.wait(t)
	}
	w.once()
	w.expectAll(kills * 8 * 100) // at most the batches in flight, each time
	t.Logf("%d repeated after %d kills", w.trail.Counts().Repeats, kills)
}

func TestOneSecondHoldsManyRows(t *testing.T) {
	t.Parallel()
	inEachOrder(t, func(t *testing.T, w *world) {
		at := time.Now().Add(-time.Hour)
		w.kong.Add(rows("s", 3000, func(int) time.Time { return at })...)
		w.once()
		w.expectAll(0)
		w.kong.Add(rows("t", 2500, func(i int) time.Time { return at.Add(time.Duration(i/1250) * time.Second) })...)
		w.once()
		w.expectAll(0)
	})
}

func TestRowsAheadOfTheClock(t *testing.T) {
	t.Parallel()
	inEachOrder(t, func(t *testing.T, w *world) {
		now := time.Now()
		w.kong.Add(rows("a", 10, func(i int) time.Time { return now.Add(24*time.Hour + time.Duration(i)*time.Minute) })...)
		w.kong.Add(rows("p", 1200, func(i int) time.Time { return now.Add(-time.Duration(i) * time.Minute) })...)
		if s := w.once(); s.Ahead != 10 {
			t.Errorf("%+v", s)
		}
		w.expectAll(0)
		// What comes at the real time after that is not behind any mark.
		w.kong.Add(rows("n", 50, func(int) time.Time { return now })...)
		w.once()
		w.expectAll(0)
	})
}

func TestDownForThreeDays(t *testing.T) {
	t.Parallel()
	inEachOrder(t, func(t *testing.T, w *world) {
		clock := time.Now().Add(-4 * 24 * time.Hour)
		w.kong.Update(func(o *kongtest.Options) { o.Now = func() time.Time { return clock } })
		w.kong.Add(rows("a", 500, func(i int) time.Time { return clock.Add(-time.Duration(i) * time.Minute) })...)
		w.once()
		w.kong.Update(func(o *kongtest.Options) { o.Now = time.Now })
		w.kong.Add(rows("b", 3000, func(i int) time.Time { return clock.Add(time.Duration(i) * 90 * time.Second) })...)
		w.once()
		w.expectAll(0)
	})
}

func TestSecondGateway(t *testing.T) {
	t.Parallel()
	first := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	first.kong.AddSeq(auditlog.Generate(1500, 4, auditlog.Mix{}))
	first.once()
	second := *first
	second.kong = kongtest.New(kongtest.Options{SkipReads: true, Token: testToken})
	url, err := second.kong.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.kong.Close() })
	second.kong.AddSeq(auditlog.Generate(1500, 5, auditlog.Mix{}))
	second.env = append(append([]string{}, first.env...), "KONG_ADMIN_API="+url)
	r := second.start(nil, "once")
	if code := r.wait(t); code != exitFailed || !strings.Contains(r.stderr.String(), "--source") || !strings.Contains(r.stderr.String(), "--adopt") {
		t.Errorf("exit code %d:\n%s", code, r.stderr.String())
	}
	second.env = append(second.env, "RELAY_SOURCE=kong-2")
	second.once()
	second.expectAll(0)
	first.expectAll(0)
}

func TestWrongRecipient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{
		Faults: cloudtrailtest.Faults{Events: map[string]float64{"InvalidRecipient": 1}}})
	w.kong.AddSeq(auditlog.Generate(300, 6, auditlog.Mix{Plain: true}))
	r := w.start(nil, "once", "--json")
	if code := r.wait(t); code != exitFailed || !strings.Contains(r.stderr.String(), "What to do: ") {
		t.Errorf("exit code %d:\n%s", code, r.stderr.String())
	}
	if s := r.summary(t); s.Dead+s.Deferred+s.Delivered > 0 || s.Failed == 0 {
		t.Errorf("%+v", s)
	}
	w.trail.SetFaults(cloudtrailtest.Faults{})
	w.once()
	w.expectAll(0)
}

func TestReadsOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	now := time.Now()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{Unsigned: true, Lean: true, CallsPerSecond: -1})
	const retained = 60_000 // sixty pages, of which a pass reads three
	w.kong.AddSeq(auditlog.Generate(retained, 7, auditlog.Mix{Plain: true, From: now.Add(-29 * 24 * time.Hour), To: now.Add(-time.Minute)}))
	first := w.start([]string{"RELAY_PUT_RATE=10000"}, "once", "--full")
	if code := first.wait(t); code != 0 {
		t.Fatalf("%d: %s", code, first.stderr.String())
	}
	w.kong.AddSeq(auditlog.Generate(1000, 8, auditlog.Mix{Plain: true, From: now.Add(-50 * time.Second), To: now}))
	before := w.kong.Stats().Pages
	s := w.once()
	pages := w.kong.Stats().Pages - before
	inWindow := retained*25/(29*24) + 1000
	if limit := int64(inWindow/1000 + 3); pages > limit {
		t.Errorf("a reconcile took %d pages, want at most %d: %+v", pages, limit, s)
	}
	w.expectAll(0)
}

func TestTailReadsFewPages(t *testing.T) {
	t.Parallel()
	now := time.Now()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{Unsigned: true, Lean: true, CallsPerSecond: -1})
	w.kong.AddSeq(auditlog.Generate(20_000, 9, auditlog.Mix{Plain: true, From: now.Add(-29 * 24 * time.Hour), To: now.Add(-10 * time.Minute)}))
	r, url, ops := w.serve("RELAY_PUT_RATE=10000")
	defer func() {
		if t.Failed() {
			t.Logf("%+v\n%s", w.trail.Counts(), tail(r.stderr.String(), 4000))
		}
	}()
	eventually(t, patient, "the first pass", func() bool { return metric(t, ops, `passes_total{kind="reconcile",outcome="complete"}`) == "1" })
	pages := w.kong.Stats().Pages
	now = time.Now() // a tail begins a few seconds before the pass did, however long that was waited for
	w.kong.Add(rows("n", 1000, func(i int) time.Time { return now.Add(time.Duration(i/10) * time.Millisecond) })...)
	notifyOnce(t, url, fmt.Sprintf("n%031d", 999))
	eventually(t, patient, "the new entries", func() bool { return w.trail.Counts().Distinct == 21_000 })
	if n := w.kong.Stats().Pages - pages; n > 3 {
		t.Errorf("a tail took %d pages", n)
	}
}
