package main

import (
	"slices"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// BenchmarkPrompt measures the time from an answer of the Admin API to the
// accepted event, with the built relay and a real Redis, and reports its median
// and its 99th percentile. The product promises the time that Kong takes to write
// its row (rowDelay here, none in a burst) and well under a quarter of a second.
func BenchmarkPrompt(b *testing.B) {
	const rowDelay = 100 * time.Millisecond
	b.Run("spaced", func(b *testing.B) {
		w := newWorld(b, kongtest.Options{SkipReads: true, RowDelay: rowDelay}, cloudtrailtest.Options{})
		_, url, _ := w.serve()
		a := w.arrivals()
		for b.Loop() {
			a.request(url, 1)
			a.await()
		}
		reportLatency(b, a.took())
	})
	b.Run("reconcile", func(b *testing.B) {
		w := newWorld(b, kongtest.Options{SkipReads: true, RowDelay: rowDelay}, cloudtrailtest.Options{
			Faults: cloudtrailtest.Faults{Delay: 50 * time.Millisecond}})
		url, _ := w.reconcile()
		a := w.arrivals()
		for range b.N {
			a.request(url, 1)
			a.await()
		}
		reportLatency(b, a.took())
	})
	b.Run("burst", func(b *testing.B) {
		var took []time.Duration
		var polls int64
		for range b.N { // each in its own log: a tail reads what the last five seconds brought
			w := newWorld(b, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
			_, url, _ := w.serve("RELAY_TRIGGER_RATE=10000")
			a := w.arrivals()
			before := w.kong.Stats().Pages
			for range 50 {
				a.request(url, 20) // as the plugin gathers them
			}
			a.await()
			polls += w.kong.Stats().Pages - before
			took = append(took, a.took()...)
		}
		reportLatency(b, took)
		b.ReportMetric(float64(polls)/float64(b.N), "pages/1000requests")
	})
}

// arrivals notes when requests were answered. When an event was accepted, the emulated CloudTrail Lake notes.
type arrivals struct {
	w        *world
	answered map[string]time.Time
}

func (w *world) arrivals() *arrivals { return &arrivals{w, map[string]time.Time{}} }

// request makes Admin API requests and triggers the relay for them.
func (a *arrivals) request(url string, n int) {
	var ids []string
	for range n {
		id := adminRequest(a.w.tb, a.w)
		a.answered[id] = time.Now()
		ids = append(ids, id)
	}
	notifyOnce(a.w.tb, url, ids...)
}

// await waits until every event was accepted.
func (a *arrivals) await() {
	eventually(a.w.tb, 30*time.Second, "the events", func() bool {
		for id := range a.answered {
			if a.w.trail.Times(id) == 0 {
				return false
			}
		}
		return true
	})
}

func (a *arrivals) took() (list []time.Duration) {
	for _, e := range a.w.trail.Events() {
		if at, ok := a.answered[e.ID]; ok && !e.Repeat {
			list = append(list, e.Received.Sub(at))
		}
	}
	return list
}

func reportLatency(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "median-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "p99-ms")
}
