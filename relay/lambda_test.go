package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/lambdahost"
)

const (
	scheduleEvent = `{"schedule":true}`
	ruleEvent     = `{"version":"0","id":"53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa","detail-type":"Scheduled Event","source":"aws.events",` +
		`"account":"123456789012","time":"2026-01-31T12:00:00Z","region":"eu-central-1","resources":["arn:aws:events:eu-central-1:123456789012:rule/hourly"],"detail":{}}`
	schedulerEvent = `{"version":"0","id":"bbb","detail-type":"Scheduled Event","source":"aws.scheduler","account":"123456789012",` +
		`"time":"2026-01-31T12:00:00Z","region":"eu-central-1","resources":["arn:aws:scheduler:eu-central-1:123456789012:schedule/default/hourly"],"detail":"{}"}`
)

func triggerEvent(ids ...string) string {
	text, _ := json.Marshal(ids)
	return fmt.Sprintf(`{"trigger":{"request_ids":%s,"sent_at":%q}}`, text, time.Now().UTC().Format(time.RFC3339Nano))
}

// One process serves every kind of schedule, over one connection to Kong, and
// tells its metrics each time, also when there is nothing to do.
func TestLambdaSchedule(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	var invocation, kept atomic.Int32 // the number of an invocation; requests on a connection of an earlier one
	var opened sync.Map               // connection → invocation
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		now := invocation.Load()
		if at, known := opened.LoadOrStore(r.RemoteAddr, now); known && at != now {
			kept.Add(1)
		}
		w.kong.ServeHTTP(rw, r)
	}))
	t.Cleanup(front.Close)
	w.without("KONG_ADMIN_API")
	l := newFakeLambda(w, time.Minute, "KONG_ADMIN_API="+front.URL)
	now := time.Now()
	for i, event := range []string{scheduleEvent, ruleEvent, schedulerEvent} {
		w.kong.Add(rows(strconv.Itoa(i), 1500, func(i int) time.Time { return now.Add(-time.Duration(i) * time.Second) })...)
		invocation.Add(1)
		if r := l.result(event); r.Outcome != lambdahost.Complete || r.Delivered != 1500 || r.Kind != "reconcile" || r.Failed > 0 {
			t.Errorf("%s: %+v", event, r)
		}
	}
	const invocations = 10
	for range invocations - 3 {
		invocation.Add(1)
		if r := l.result(scheduleEvent); r.Outcome != lambdahost.Complete || r.New != 0 {
			t.Errorf("quiet: %+v", r)
		}
	}
	w.expectAll(0)
	log := l.stop()
	// One connection as a rule: on a busy machine a request may come before the end of the last
	// answer is read, and a connection that was idle for seconds is not used again.
	if kept.Load() == 0 {
		t.Error("no invocation used a connection of an earlier one")
	}
	if !l.registered {
		t.Error("did not ask for SIGTERM")
	}
	if n := strings.Count(log, `"invocation done"`); n != invocations {
		t.Errorf("%d lines about %d invocations: %s", n, invocations, log)
	}
	lines := l.emf()
	if len(lines) != invocations {
		t.Fatalf("%d lines of metrics for %d invocations", len(lines), invocations)
	}
	for i, m := range lines {
		want := map[string]float64{"DeadLetters": 0, "Deferred": 0, "OldestUndeliveredAge": 0, "PassFailures": 0, "EntriesDelivered": 1500}
		if i >= 3 {
			want["EntriesDelivered"] = 0
		}
		for name, v := range want {
			if got, ok := m[name]; !ok || got != v {
				t.Errorf("line %d: %s is %v (%v), want %v", i, name, got, ok, v)
			}
		}
		if got, ok := m["LastCompletePassAge"]; !ok || got > 120 {
			t.Errorf("line %d: LastCompletePassAge is %v (%v)", i, got, ok)
		}
	}
}

func TestLambdaTrigger(t *testing.T) {
	t.Parallel()
	var pagesUntilRow atomic.Int32
	w := newWorld(t, kongtest.Options{SkipReads: true, RowDelay: time.Hour}, cloudtrailtest.Options{})
	w.kong.Update(func(o *kongtest.Options) {
		o.OnPage = func(kongtest.Request) (none kongtest.Fault) {
			if pagesUntilRow.Add(-1) < 0 {
				w.kong.ReleaseRows()
			}
			return none
		}
	})
	l := newFakeLambda(w, time.Minute)
	l.result(scheduleEvent)
	var ids []string
	for range 5 {
		pagesUntilRow.Store(1) // the first poll does not find it
		id := adminRequest(t, w)
		ids = append(ids, id)
		r := l.result(triggerEvent(id))
		if w.trail.Times(id) != 1 || r.Outcome != lambdahost.Complete || r.Delivered != 1 || r.Waiting != 0 {
			t.Errorf("%+v", r)
		}
		t.Logf("%d passes, %.3f s", r.Passes, r.Seconds)
	}
	// The same event again, hours late for all that the relay knows: nothing is looked for.
	pages := w.kong.Stats().Pages
	if r := l.result(triggerEvent(ids...)); r.Outcome != lambdahost.Nothing || w.kong.Stats().Pages != pages {
		t.Errorf("%+v, %d pages", r, w.kong.Stats().Pages-pages)
	}
	// No ids: look now.
	w.kong.Add(row("lookNow", time.Now()))
	if r := l.result(triggerEvent()); w.trail.Times("lookNow") != 1 || r.Delivered != 1 {
		t.Errorf("%+v", r)
	}
	w.expectAll(0)
	l.stop()
	r := w.start(nil, "status", "--json")
	if r.wait(t); !strings.Contains(r.stdout.String(), `"announced_waiting":0`) || !strings.Contains(r.stdout.String(), `"announced_missing":0`) {
		t.Errorf("still on the list: %s", r.stdout.String())
	}
}

// An id that does not show up is waited for over several invocations.
func TestLambdaTriggerGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true, RowDelay: time.Hour}, cloudtrailtest.Options{})
	l := newFakeLambda(w, time.Minute)
	l.arn += ":live"
	l.result(scheduleEvent)
	id := adminRequest(t, w)
	l.limit = 4500 * time.Millisecond // no poll begins in the last 1.7 s of it, and an id is polled for 3 s
	if r := l.result(triggerEvent(id)); r.Outcome != lambdahost.Continued || r.Waiting != 1 {
		t.Errorf("%+v", r)
	}
	next := l.queued()
	if want := `{"continue":{"kind":"tail","chain":1}}`; len(next) != 1 || next[0] != want {
		t.Fatalf("goes on with %s, want %s", next, want)
	}
	if l.qualifiers[0] != "live" {
		t.Errorf("goes on with version %q", l.qualifiers[0])
	}
	l.limit = time.Minute
	w.kong.ReleaseRows()
	if r := l.result(next[0]); r.Outcome != lambdahost.Complete || w.trail.Times(id) != 1 {
		t.Errorf("%+v", r)
	}
}

// A ledger of another Kong is a matter of settings: the hint is in the answer.
func TestLambdaLedgerOfAnotherKong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	book := w.ledger()
	if err := book.BindKong(t.Context(), "http://other:8001", false); err != nil {
		t.Fatal(err)
	}
	lease, err := book.Acquire(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.SetMarks(t.Context(), audit.Marks{Cursor: 1}); err != nil {
		t.Fatal(err)
	}
	l := newFakeLambda(w, 20*time.Second)
	if kind, message := l.fault(scheduleEvent); kind != "SettingsError" || !strings.Contains(message, "RELAY_ADOPT") {
		t.Errorf("%s %s", kind, message)
	}
}

// Who finds another relay at work requests a rerun, and has done its part.
func TestLambdaLeaseHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	l := newFakeLambda(w, 20*time.Second, "RELAY_LEASE_WAIT=0s")
	l.result(scheduleEvent)
	book := w.ledger()
	lease, err := book.Acquire(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	id := adminRequest(t, w)
	for _, event := range []string{scheduleEvent, triggerEvent(id), triggerEvent()} {
		if r := l.result(event); r.Outcome != lambdahost.Held {
			t.Errorf("%s: %+v", event, r)
		}
		if requested, err := lease.Renew(t.Context()); !requested || err != nil {
			t.Errorf("%s: a rerun was requested: %v, %v", event, requested, err)
		}
	}
	if list, err := book.Announced(t.Context()); err != nil || len(list) != 1 || list[0].ID != id {
		t.Errorf("announced are %v, %v", list, err)
	}
	// Whoever works next looks for it too.
	if _, err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := l.result(scheduleEvent); r.Outcome != lambdahost.Complete || w.trail.Times(id) != 1 || r.Waiting != 0 {
		t.Errorf("%+v", r)
	}
	if list, err := book.Announced(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("announced are %v, %v", list, err)
	}
}

// A destination that is down fails the invocation, and its entries get older.
func TestLambdaDestinationDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	now := time.Now()
	w.kong.Add(rows("d", 500, func(i int) time.Time { return now.Add(-time.Duration(2*i+60) * time.Second) })...)
	w.trail.SetDown(true)
	l := newFakeLambda(w, time.Minute, "RELAY_RETRY_FOR=1s")
	if kind, message := l.fault(scheduleEvent); kind != "PassFailed" || !strings.Contains(message, "does not accept") {
		t.Errorf("%s %s", kind, message)
	}
	w.trail.SetDown(false)
	if r := l.result(scheduleEvent); r.Outcome != lambdahost.Complete || r.Delivered != 500 {
		t.Errorf("%+v", r)
	}
	w.expectAll(0)
	l.stop()
	lines := l.emf()
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	if m := lines[0]; m["PassFailures"] != 1 || m["OldestUndeliveredAge"] < 1058 || m["OldestUndeliveredAge"] > 1300 || m["EntriesDelivered"] != 0 {
		t.Errorf("%v", m)
	}
	if _, ok := lines[0]["LastCompletePassAge"]; ok {
		t.Errorf("%v, before any pass was complete", lines[0])
	}
	if m := lines[1]; m["PassFailures"] != 0 || m["OldestUndeliveredAge"] != 0 || m["EntriesDelivered"] != 500 {
		t.Errorf("%v", m)
	}
}

// A rotated token is picked up by the process that runs.
func TestLambdaRotatedSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.without("KONG_ADMIN_TOKEN")
	store := &secretStore{text: testToken}
	l := newFakeLambda(w, 20*time.Second, store.start(t),
		"KONG_ADMIN_TOKEN_SECRET_ARN=arn:aws:secretsmanager:eu-central-1:123456789012:secret:kong-AbCdEf", "RELAY_SECRET_REFRESH=24h")
	l.result(scheduleEvent)
	const rotated = "another-token-of-the-audit-relay"
	store.set(rotated)
	w.kong.Update(func(o *kongtest.Options) { o.Token = rotated })
	w.kong.Add(row("afterRotation", time.Now()))
	// The old token is refused; it was read a moment ago, and may have to be asked for again.
	eventually(t, patient, "the rotated token", func() bool {
		l.invoke(scheduleEvent)
		return w.trail.Times("afterRotation") == 1
	})
	l.stop()
}

// BenchmarkLambdaColdStart measures the time from the start of the process to its first call
// to Kong, and reports the fastest, the median and the slowest.
func BenchmarkLambdaColdStart(b *testing.B) {
	var first atomic.Int64
	w := newWorld(b, kongtest.Options{SkipReads: true, OnPage: func(kongtest.Request) kongtest.Fault {
		first.CompareAndSwap(0, time.Now().UnixNano())
		return kongtest.Fault{}
	}}, cloudtrailtest.Options{})
	if _, err := relayBinary(); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	var l *fakeLambda
	for b.Loop() {
		first.Store(0)
		begin := time.Now()
		if l == nil {
			l = newFakeLambda(w, 20*time.Second)
		} else {
			l.start()
		}
		l.result(scheduleEvent)
		took = append(took, time.Unix(0, first.Load()).Sub(begin))
		l.stop()
	}
	slices.Sort(took)
	for name, d := range map[string]time.Duration{"fastest-ms": took[0], "median-ms": took[len(took)/2], "slowest-ms": took[len(took)-1]} {
		b.ReportMetric(float64(d.Milliseconds()), name)
	}
}
