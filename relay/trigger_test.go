package main

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// reconcile starts a relay, and returns once it is at work on a reconcile that
// takes at least so long at AWS's quota.
func (w *world) reconcile(takes time.Duration) (url string) {
	now := time.Now()
	retained := int((takes+4*time.Second)/time.Second) * 100 * 100 // events a call, calls a second
	w.kong.AddSeq(auditlog.Generate(retained, 11, auditlog.Mix{Plain: true, From: now.Add(-20 * 24 * time.Hour), To: now.Add(-time.Hour)}))
	_, url, _ = w.serve()
	eventually(w.tb, patient, "the reconcile is at work", func() bool { return w.trail.Counts().Events > 1000 })
	return url
}

func TestTriggerDuringAReconcile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true, RowDelay: 100 * time.Millisecond}, cloudtrailtest.Options{
		Faults: cloudtrailtest.Faults{Delay: 50 * time.Millisecond}})
	url := w.reconcile(time.Second)
	for range 3 {
		id := adminRequest(t, w)
		notifyOnce(t, url, id)
		eventually(t, patient, "the event", func() bool { return w.trail.Times(id) > 0 })
	}
	if n, all := w.trail.Counts().Distinct, w.kong.Len(); n >= all {
		t.Errorf("the reconcile had delivered all %d entries by then", n)
	}
}

func TestBurstCostsFewPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true, RowDelay: 100 * time.Millisecond}, cloudtrailtest.Options{})
	_, url, _ := w.serve("RELAY_TRIGGER_RATE=10000")
	eventually(t, patient, "first pass", func() bool { return w.kong.Stats().Pages > 1 })
	before := w.kong.Stats().Pages
	var ids []string
	begin := time.Now()
	for i := range 1000 {
		ids = append(ids, adminRequest(t, w))
		if i%20 == 19 { // as the plugin gathers them
			notifyOnce(t, url, ids[i-19:]...)
		}
	}
	eventually(t, patient, "all events", func() bool { return w.trail.Counts().Distinct >= 1000 })
	pages := w.kong.Stats().Pages - before
	t.Logf("%d pages for %d requests", pages, len(ids))
	// Polls keep a distance of 100 ms, and a busy machine takes longer for the burst.
	if limit := max(20, int64(time.Since(begin)/(100*time.Millisecond))); pages > limit {
		t.Errorf("%d pages in %s, want at most %d", pages, time.Since(begin), limit)
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
