package main

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// reconcile starts a relay, and returns once it is at work on a reconcile that does not end:
// whenever it reads a page, as many rows are added after those that are there.
func (w *world) reconcile() (url, ops string) {
	now := time.Now()
	old := now.Add(-time.Hour)
	more := now.Add(-19 * 24 * time.Hour)
	var mu sync.Mutex
	n := 0
	w.kong.Update(func(o *kongtest.Options) {
		o.OnPage = func(r kongtest.Request) (none kongtest.Fault) {
			if after, err := strconv.ParseInt(r.Query.Get("after"), 10, 64); err != nil || after >= old.Unix() {
				return none // of a tail
			}
			mu.Lock()
			defer mu.Unlock()
			n++
			w.kong.Add(rows(fmt.Sprintf("more%d-", n), 1000, func(i int) time.Time { return more.Add(time.Duration(1000*n+i) * 10 * time.Millisecond) })...)
			return none
		}
	})
	w.kong.AddSeq(auditlog.Generate(5000, 11, auditlog.Mix{Plain: true, From: now.Add(-20 * 24 * time.Hour), To: more}))
	_, url, ops = w.serve()
	eventually(w.tb, patient, "the reconcile is at work", func() bool { return w.trail.Counts().Events > 1000 })
	return url, ops
}

func TestTriggerDuringAReconcile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true, RowDelay: 100 * time.Millisecond}, cloudtrailtest.Options{
		Faults: cloudtrailtest.Faults{Delay: 50 * time.Millisecond}})
	url, ops := w.reconcile()
	for range 3 {
		id := adminRequest(t, w)
		notifyOnce(t, url, id)
		eventually(t, patient, "the event", func() bool { return w.trail.Times(id) > 0 })
	}
	if n := metric(t, ops, `passes_total{kind="reconcile",outcome="complete"}`); n != "" && n != "0" {
		t.Error("the reconcile has ended: the test shows nothing")
	}
}

// A burst costs what the time that it takes costs, and not what its requests or its
// triggers do: polls begin at least 100 ms apart. Who is slow allows the relay more polls,
// so that no slowness fails the test. How many a burst of a second costs is said by
// TestABurstCostsAHandfulOfPolls (announce), TestBurst (runner) and BenchmarkPrompt.
func TestBurstCostsFewPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true, RowDelay: 100 * time.Millisecond}, cloudtrailtest.Options{})
	_, url, ops := w.serve("RELAY_TRIGGER_RATE=10000")
	eventually(t, patient, "the first pass", func() bool { return metric(t, ops, `passes_total{kind="reconcile",outcome="complete"}`) == "1" })
	before := len(w.kong.Pages())
	begin := time.Now()
	var ids []string
	for i := range 1000 {
		ids = append(ids, adminRequest(t, w))
		if i%20 == 19 { // as the plugin gathers them
			notifyOnce(t, url, ids[i-19:]...)
		}
	}
	eventually(t, patient, "all events", func() bool { return w.trail.Counts().Distinct >= 1000 })
	took := time.Since(begin)
	pages := w.kong.Pages()[before:]
	polls := 0
	for _, p := range pages {
		if p.Query.Get("size") == "1000" { // others confirm what such a page has shown
			polls++
		}
	}
	t.Logf("%d pages in %d polls for %d requests in %s", len(pages), polls, len(ids), took)
	if limit := 2 + int(took/(100*time.Millisecond)); polls > limit {
		t.Errorf("%d polls in %s, want at most %d", polls, took, limit)
	}
	if limit := 3 * polls; len(pages) > limit {
		t.Errorf("%d pages in %d polls, want at most %d", len(pages), polls, limit)
	}
	w.expectAll(0)
}

func TestAnnouncedAndMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	_, url, _ := w.serve()
	notifyOnce(t, url, "neverRecorded")
	r := w.start(nil, "status", "--json")
	if code := r.wait(t); code != 0 {
		t.Fatalf("relay status ended with %d: %s", code, r.stderr.String())
	}
	if want := `"announced_waiting":1`; !bytes.Contains(r.stdout.Bytes(), []byte(want)) {
		t.Errorf("%s has no %s", fmt.Sprint(r.stdout.String()), want)
	}
}
