package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/lambdahost"
)

// recent are rows that every reconcile reads.
func recent() auditlog.Mix {
	return auditlog.Mix{From: time.Now().Add(-20 * time.Hour), To: time.Now()}
}

// slow gives a destination that takes a second for a call.
func slow() cloudtrailtest.Options {
	return cloudtrailtest.Options{Faults: cloudtrailtest.Faults{Delay: time.Second}}
}

// short is the time of an invocation that does not suffice for a backlog of 20,000 entries,
// of which the slow destination takes at most 800 a second. It is long enough for a busy
// machine to get something done in it.
const short = 18 * time.Second

// cut returns how many entries may be repeated by invocations that ran out of time: on a
// machine that stalls, what is in flight may not be recorded in the time that is kept for
// that. That it is recorded as a rule is said by TestOutOfTime (pipeline).
func cut(results []lambdahost.Result) int { return (len(results) - 1) * 8 * 100 }

func TestLambdaWorksOffABacklog(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		kong  kongtest.Options
		trail cloudtrailtest.Options
		least int
	}{
		{"fast", kongtest.Options{}, cloudtrailtest.Options{}, 1},
		{"slow", kongtest.Options{}, slow(), 2},
		{"slow, newest first", kongtest.Options{Order: kongtest.NewestFirst}, slow(), 2},
		{"slow, no order", kongtest.Options{Order: kongtest.Unordered}, slow(), 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.kong.SkipReads = true
			w := newWorld(t, tc.kong, tc.trail)
			now := time.Now()
			w.kong.AddSeq(auditlog.Generate(20_000, 4, auditlog.Mix{From: now.Add(-29 * 24 * time.Hour), To: now}))
			l := newFakeLambda(w, short)
			results := append([]lambdahost.Result{l.result(scheduleEvent)}, l.drain()...)
			var delivered []int
			for i, r := range results {
				delivered = append(delivered, r.Delivered)
				if r.Chain != i || (r.Outcome == lambdahost.Continued) != (i < len(results)-1) || r.Outcome == lambdahost.Continued && r.Left == "" {
					t.Errorf("invocation %d: %+v", i, r)
				}
			}
			t.Logf("%d invocations of %s delivered %v", len(results), short, delivered)
			if len(results) < tc.least {
				t.Errorf("%d invocations tell nothing about going on", len(results))
			}
			w.expectAll(cut(results) + l.again*8*100)
			l.stop()
			failures := 0.0
			for _, m := range l.emf() {
				failures += m["PassFailures"]
			}
			if failures > float64(l.again) {
				t.Errorf("%v failures in %v", failures, l.emf())
			}
		})
	}
}

func TestLambdaChainEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, slow())
	w.kong.AddSeq(auditlog.Generate(20_000, 4, auditlog.Mix{}))
	l := newFakeLambda(w, short)
	r := l.result(`{"continue":{"kind":"reconcile","chain":10}}`)
	if r.Outcome != lambdahost.Left || r.Left == "" || r.Delivered == 0 {
		t.Errorf("%+v", r)
	}
	if next := l.queued(); len(next) != 0 {
		t.Errorf("goes on with %s", next)
	}
	// The schedule begins a new chain where that one ended.
	results := append([]lambdahost.Result{l.result(scheduleEvent)}, l.drain()...)
	if results[0].Chain != 0 || results[len(results)-1].Outcome != lambdahost.Complete {
		t.Errorf("%+v", results)
	}
	w.expectAll(800 + cut(results) + l.again*8*100)

	// Without the permission to go on it fails, and says what is missing.
	w.kong.AddSeq(auditlog.Generate(20_000, 5, recent()))
	l.refuse = http.StatusForbidden
	if kind, message := l.fault(scheduleEvent); kind != "SettingsError" || !strings.Contains(message, "lambda:InvokeFunction") {
		t.Errorf("%s %s", kind, message)
	}
}

// Told to stop, the relay records what is in flight and ends; a killed one repeats at most that.
func TestLambdaStops(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, slow())
	w.kong.AddSeq(auditlog.Generate(20_000, 6, auditlog.Mix{})) // half a minute's work
	l := newFakeLambda(w, 2*time.Minute)
	e := l.send(scheduleEvent)
	eventually(t, patient, "events", func() bool { return w.trail.Counts().Events > 500 })
	l.stop()
	select {
	case <-e.done:
	default:
		t.Error("ended without an answer")
	}
	if !e.failed {
		t.Errorf("answered %s", e.answer)
	}
	w.trail.SetFaults(cloudtrailtest.Faults{})
	l.start()
	l.result(scheduleEvent)
	w.expectAll(0)
	if log := l.stop(); !strings.Contains(log, "invocation done") {
		t.Error(log)
	}

	w.trail.SetFaults(slow().Faults)
	w.kong.AddSeq(auditlog.Generate(20_000, 7, recent()))
	l.start()
	l.send(scheduleEvent)
	eventually(t, patient, "events", func() bool { return w.trail.Counts().Events > 20_500 })
	l.kill()
	w.trail.SetFaults(cloudtrailtest.Faults{})
	l.start()
	if r := l.result(scheduleEvent); r.Outcome != lambdahost.Complete { // once the lease of the killed one has run out
		t.Errorf("%+v", r)
	}
	w.expectAll(8 * 100)
}
