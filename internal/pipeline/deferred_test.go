package pipeline

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// An event that keeps failing by itself is deferred, tried first by each pass, and
// dead after a day.
func TestDeferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		ids := w.kong.add(span(w.now()-100, 20, 4)...)
		heals, never := ids[3], ids[7]
		sick := []string{heals, never}
		var first []audit.Entry
		w.destination.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			if first == nil {
				first = entries
			}
			verdicts := make([]audit.Verdict, len(entries))
			for i := range entries {
				if slices.Contains(sick, entries[i].ID) {
					verdicts[i] = audit.Verdict{Code: "Throttling", Reason: "slow down"}
				} else {
					verdicts[i] = w.destination.accept(entries[i : i+1])[0]
				}
			}
			return verdicts, nil
		}
		begin := time.Now()
		s := w.pass(Request{Kind: audit.Reconcile})
		if took := time.Since(begin); s.Deferred != 2 || s.Delivered != 18 || took < 2*time.Minute || took > 3*time.Minute {
			t.Errorf("%+v after %s", s, time.Since(begin))
		}
		deferred := time.Now()
		if m := w.store.saved(); m.Cursor < begin.Unix()-30 || m.FullAt == 0 {
			t.Errorf("marks did not pass what is deferred: %+v", m)
		}
		w.advance(time.Hour)
		w.kong.add(w.now())
		first, sick = nil, []string{never}
		if s := w.pass(Request{Kind: audit.Tail}); s.Delivered != 2 || !holds(first, heals, never) || len(w.store.letters) != 1 {
			t.Errorf("%+v, first put %v", s, first)
		}
		// Tails try once a minute at most.
		first = nil
		if w.pass(Request{Kind: audit.Tail}); first != nil {
			t.Error("tried again at once")
		}
		w.advance(time.Until(deferred.Add(24*time.Hour - time.Minute)))
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Dead != 0 {
			t.Errorf("dead before its time: %+v", s)
		}
		w.advance(2 * time.Minute)
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Dead != 1 {
			t.Errorf("%+v", s)
		}
		if l := w.store.letters[never]; l.Outcome != audit.Dead || !l.Since.Equal(deferred.UTC()) || l.Reason == "slow down" {
			t.Errorf("%+v", l)
		}
		first = nil
		if w.pass(Request{Kind: audit.Reconcile}); first != nil {
			t.Error("a dead letter was put")
		}
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		if w.store.outcomes[heals] != audit.Delivered {
			t.Error("what healed is not delivered")
		}
	})
}

// park puts letters into the store as a pass would have.
func (w *world) park(since time.Time, n int) (ids []string) {
	w.t.Helper()
	h := &handle{store: w.store}
	if err := h.Begin(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	for i, id := range w.kong.add(span(w.now()-1000, n, 1)...) {
		e := w.kong.all()[i]
		l := &audit.Undelivered{Entry: e, Outcome: audit.Deferred, Code: "InternalFailure", Since: since}
		if err := h.Record(context.Background(), []audit.Record{{ID: id, Timestamp: e.Timestamp, Outcome: audit.Deferred, Undelivered: l}}); err != nil {
			w.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// Neither an outage nor a wrong setting makes a dead letter of what is deferred, however long.
func TestDeferredDuringOutage(t *testing.T) {
	for name, put := range map[string]func(ctx context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error){
		"outage": down,
		"wrong setting": func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			return makeVerdicts(len(entries), "AccessDenied"), audit.SettingsErrorf("allow it", "access denied")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, oldest())
				w.park(time.Now().Add(-30*time.Hour), 40)
				w.kong.add(w.now())
				w.destination.put = put
				for range 3 {
					begin := time.Now()
					if _, err := w.run(Request{Kind: audit.Reconcile}); err == nil {
						t.Error("no error")
					}
					if w.store.count(audit.Deferred) != 40 || w.store.count(audit.Dead) != 0 {
						t.Errorf("%d deferred, %d dead", w.store.count(audit.Deferred), w.store.count(audit.Dead))
					}
					if took := time.Since(begin); took > 5*time.Minute {
						t.Errorf("it took %s", took)
					}
				}
				if n := w.destination.putCalls(); n > 3*(maxFailed+170) { // and a probe a second
					t.Errorf("%d calls", n)
				}
				w.destination.put = nil
				if s := w.pass(Request{Kind: audit.Reconcile}); s.Delivered != 41 {
					t.Errorf("%+v", s)
				}
				w.allOnce()
			})
		})
	}
}

// A deferred entry on which the destination chokes does not keep the other deferred
// ones from being delivered, and is dead after a day.
func TestDeferredChoking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		ids := w.park(time.Now().Add(-23*time.Hour-30*time.Minute), 60)
		bad := []string{ids[0], ids[1], ids[40]}
		w.destination.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			if holds(entries, bad...) {
				return makeVerdicts(len(entries), "InternalFailure"), errCall
			}
			return w.destination.accept(entries), nil
		}
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Delivered != 57 || w.store.count(audit.Deferred) != 3 {
			t.Errorf("%+v", s)
		}
		w.advance(time.Hour)
		w.kong.add(w.now())
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Delivered != 1 || s.Dead != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestDeferredRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		ids := w.park(time.Now(), 3)
		w.destination.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			verdicts := w.destination.accept(entries)
			verdicts[1] = audit.Verdict{Status: audit.Rejected, Code: "InvalidData", Reason: "now it says so"}
			return verdicts, nil
		}
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Dead != 1 || s.Delivered != 2 {
			t.Errorf("%+v", s)
		}
		if l := w.store.letters[ids[1]]; l.Outcome != audit.Dead || l.Code != "InvalidData" || l.Tries != 1 {
			t.Errorf("%+v", l)
		}
	})
}

// In an outage with nothing else to put, nothing tells that a deferred entry is to
// blame, so it stays deferred, however long.
func TestDeferredAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.park(time.Now().Add(-30*time.Hour), 3)
		w.destination.put = down
		for range 3 {
			if s := w.pass(Request{Kind: audit.Reconcile}); s.Dead != 0 || w.store.count(audit.Deferred) != 3 {
				t.Errorf("%+v", s)
			}
		}
		w.destination.put = nil
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
	})
}
