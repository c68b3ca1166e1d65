package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

var errCall = errors.New("500 Internal Server Error")

func holds(entries []audit.Entry, ids ...string) bool {
	return slices.ContainsFunc(entries, func(e audit.Entry) bool { return slices.Contains(ids, e.ID) })
}

// Whatever heals is put again until it has: nothing is lost, and nothing that the
// destination told of is put twice.
func TestWhatHeals(t *testing.T) {
	for name, put := range map[string]func(s *sink, r *rand.Rand, entries []audit.Entry) ([]audit.Verdict, error){
		"events that throttle": func(s *sink, r *rand.Rand, entries []audit.Entry) ([]audit.Verdict, error) {
			verdicts := make([]audit.Verdict, len(entries))
			for i := range entries {
				if r.IntN(3) == 0 {
					verdicts[i].Code = "Throttling"
				} else {
					verdicts[i] = s.accept(entries[i : i+1])[0]
				}
			}
			return verdicts, nil
		},
		"calls that fail": func(s *sink, r *rand.Rand, entries []audit.Entry) ([]audit.Verdict, error) {
			if r.IntN(2) == 0 {
				return make([]audit.Verdict, len(entries)), errCall
			}
			return s.accept(entries), nil
		},
		"calls that fail half-way": func(s *sink, r *rand.Rand, entries []audit.Entry) ([]audit.Verdict, error) {
			n := r.IntN(len(entries) + 1)
			return append(s.accept(entries[:n]), make([]audit.Verdict, len(entries)-n)...), errCall
		},
		"entries left out": func(s *sink, r *rand.Rand, entries []audit.Entry) ([]audit.Verdict, error) {
			n := r.IntN(len(entries) + 1)
			return append(make([]audit.Verdict, n), s.accept(entries[n:])...), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, oldest(), func(o *Options) { o.BatchEntries = 7 })
				var mu sync.Mutex
				r := rand.New(rand.NewPCG(1, 2))
				w.sink.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
					mu.Lock()
					defer mu.Unlock()
					return put(w.sink, r, entries)
				}
				w.kong.add(span(w.now()-900, 200, 4)...)
				if s := w.pass(Request{Kind: Reconcile}); s.Retries == 0 || s.Dead+s.Parked != 0 {
					t.Errorf("%+v", s)
				}
				w.allOnce()
			})
		})
	}
}

// A call whose answer was lost is put again.
func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.sink.put = func(_ context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error) {
			verdicts := w.sink.accept(entries)
			if n == 1 {
				return make([]audit.Verdict, len(entries)), errors.New("connection reset")
			}
			return verdicts, nil
		}
		ids := w.kong.add(w.now(), w.now())
		if s := w.pass(Request{Kind: Reconcile}); s.Repeated != 2 || s.Delivered != 2 {
			t.Errorf("%+v", s)
		}
		if w.sink.got(ids[0]) != 2 {
			t.Error("not put again")
		}
	})
}

func TestWrongNumberOfVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.sink.put = func(_ context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error) {
			if n == 1 {
				return nil, nil
			}
			return w.sink.accept(entries), nil
		}
		w.kong.add(w.now())
		w.pass(Request{Kind: Reconcile})
		w.allOnce()
	})
}

// What is refused for good is a dead letter, and stops nobody.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.Prepare = func(e *audit.Entry) { e.Path = "/redacted" } })
		ids := w.kong.add(span(w.now()-300, 100, 3)...)
		bad := ids[33]
		w.sink.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			verdicts := make([]audit.Verdict, len(entries))
			for i := range entries {
				if entries[i].ID == bad {
					verdicts[i] = audit.Verdict{Status: audit.Refused, Code: "InvalidData", Reason: "no good"}
				} else {
					verdicts[i] = w.sink.accept(entries[i : i+1])[0]
				}
			}
			return verdicts, nil
		}
		if s := w.pass(Request{Kind: Reconcile}); s.Dead != 1 || s.Delivered != 99 {
			t.Errorf("%+v", s)
		}
		if l := w.store.letters[bad]; l.Outcome != audit.Dead || l.Code != "InvalidData" || l.Reason != "no good" || l.Tries != 1 ||
			l.Entry.ID != bad || l.Entry.Path != "/redacted" || !l.Since.Equal(time.Now()) {
			t.Errorf("%+v", l)
		}
		calls := w.sink.putCalls()
		if s := w.pass(Request{Kind: Reconcile, Full: true}); s.New != 0 || w.sink.putCalls() != calls {
			t.Errorf("%+v", s)
		}
		if w.store.saved().Cursor < w.now()-5 {
			t.Error("the cursor did not pass the dead letter")
		}
	})
}

// A setting that is wrong stops the pass, condemns nothing, and keeps what was accepted.
func TestWrongSetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.BatchEntries = 5 })
		w.sink.put = func(_ context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error) {
			if n < 3 {
				return w.sink.accept(entries), nil
			}
			verdicts := append(w.sink.accept(entries[:2]), make([]audit.Verdict, len(entries)-2)...)
			return verdicts, audit.Settingsf("set CHANNEL_ARN", "channel not found")
		}
		w.kong.add(span(w.now()-300, 100, 3)...)
		begin := time.Now()
		s, err := w.run(Request{Kind: Reconcile})
		var settings *audit.SettingsError
		if !errors.As(err, &settings) || settings.Hint != "set CHANNEL_ARN" || s.Complete {
			t.Fatalf("%v, %+v", err, s)
		}
		if time.Since(begin) > time.Second {
			t.Error("it was tried again")
		}
		if s.Dead+s.Parked+len(w.store.letters) != 0 || w.store.count(audit.Delivered) != len(w.sink.ids()) {
			t.Errorf("%+v, %d recorded of %d", s, w.store.count(audit.Delivered), len(w.sink.ids()))
		}
		w.sink.put = nil
		w.pass(Request{Kind: Reconcile})
		w.allOnce()
	})
}

// An outage condemns and parks nothing, whether it begins before or during a pass.
func TestOutage(t *testing.T) {
	for _, from := range []int{1, 2} {
		for _, batch := range []int{1, 5, 100} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, oldest(), func(o *Options) { o.BatchEntries, o.Workers = batch, 3 })
				w.kong.delay = 300 * time.Millisecond
				w.sink.put = func(ctx context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error) {
					if n >= from {
						return down(ctx, n, entries)
					}
					return w.sink.accept(entries), nil
				}
				w.kong.add(span(w.now()-400, 130, 3)...)
				for range 3 {
					s, err := w.run(Request{Kind: Reconcile})
					if !errors.Is(err, ErrUnavailable) || s.Complete || s.Left == "" {
						t.Fatalf("%v, %+v", err, s)
					}
					if s.Dead+w.store.count(audit.Dead) != 0 || s.Parked > 0 && batch > 1 {
						t.Errorf("%+v", s)
					}
				}
				w.sink.put = nil
				w.pass(Request{Kind: Reconcile})
				w.allOnce()
			})
		}
	}
}

// One entry on which the destination chokes, so that every call with it fails,
// does not stop the others.
func TestChoking(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		for name, c := range map[string]struct{ rows, bad, batch int }{
			"in the middle of a batch": {100, 50, 100},
			"first":                    {100, 0, 100},
			"last":                     {100, 99, 100},
			"many batches":             {300, 150, 20},
			"alone in its batch":       {30, 15, 1},
			"the newest":               {101, 100, 100},
		} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, newKong(), func(o *Options) { o.BatchEntries, o.PageSize = c.batch, 30 })
					w.kong.delay = 20 * time.Second // so that others are accepted meanwhile
					if c.rows <= c.batch {
						w.kong.delay = 0
					}
					bad := w.kong.add(span(w.now()-400, c.rows, 1)...)[c.bad]
					w.sink.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
						if holds(entries, bad) {
							return makeVerdicts(len(entries), "InternalFailure"), errCall
						}
						return w.sink.accept(entries), nil
					}
					// Where nothing else is put in the meantime, a pass cannot tell it from an outage;
					// the next one has more to go by.
					for range 3 {
						_, err := w.run(Request{Kind: Reconcile})
						if err == nil {
							break
						}
						if !errors.Is(err, ErrUnavailable) {
							t.Fatal(err)
						}
						w.kong.add(w.now())
					}
					for _, e := range w.kong.all() {
						want := 1
						if e.ID == bad {
							want = 0
						}
						if n := w.sink.got(e.ID); n != want {
							t.Errorf("%s was delivered %d times, want %d", e.ID, n, want)
						}
					}
					if l, ok := w.store.letters[bad]; !ok || l.Outcome != audit.Parked || len(w.store.letters) != 1 || l.Code != "InternalFailure" {
						t.Errorf("letters %+v", w.store.letters)
					}
				})
			})
		}
	})
}

func makeVerdicts(n int, code string) []audit.Verdict {
	list := make([]audit.Verdict, n)
	for i := range list {
		list[i].Code = code
	}
	return list
}

// An event that keeps failing by itself is parked, tried first by each pass, and
// dead after a day.
func TestParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		ids := w.kong.add(span(w.now()-100, 20, 4)...)
		heals, never := ids[3], ids[7]
		sick := []string{heals, never}
		var first []audit.Entry
		w.sink.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			if first == nil {
				first = entries
			}
			verdicts := make([]audit.Verdict, len(entries))
			for i := range entries {
				if slices.Contains(sick, entries[i].ID) {
					verdicts[i] = audit.Verdict{Code: "Throttling", Reason: "slow down"}
				} else {
					verdicts[i] = w.sink.accept(entries[i : i+1])[0]
				}
			}
			return verdicts, nil
		}
		begin := time.Now()
		s := w.pass(Request{Kind: Reconcile})
		if took := time.Since(begin); s.Parked != 2 || s.Delivered != 18 || took < 2*time.Minute || took > 3*time.Minute {
			t.Errorf("%+v after %s", s, time.Since(begin))
		}
		parked := time.Now()
		if m := w.store.saved(); m.Cursor < begin.Unix()-30 || m.FullAt == 0 {
			t.Errorf("marks did not pass what is parked: %+v", m)
		}
		w.advance(time.Hour)
		w.kong.add(w.now())
		first, sick = nil, []string{never}
		if s := w.pass(Request{Kind: Tail}); s.Delivered != 2 || !holds(first, heals, never) || len(w.store.letters) != 1 {
			t.Errorf("%+v, first put %v", s, first)
		}
		// Tails try once a minute at most.
		first = nil
		if w.pass(Request{Kind: Tail}); first != nil {
			t.Error("tried again at once")
		}
		w.advance(time.Until(parked.Add(24*time.Hour - time.Minute)))
		if s := w.pass(Request{Kind: Reconcile}); s.Dead != 0 {
			t.Errorf("dead before its time: %+v", s)
		}
		w.advance(2 * time.Minute)
		if s := w.pass(Request{Kind: Reconcile}); s.Dead != 1 {
			t.Errorf("%+v", s)
		}
		if l := w.store.letters[never]; l.Outcome != audit.Dead || !l.Since.Equal(parked.UTC()) || l.Reason == "slow down" {
			t.Errorf("%+v", l)
		}
		first = nil
		if w.pass(Request{Kind: Reconcile}); first != nil {
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
	if _, err := h.Begin(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	for i, id := range w.kong.add(span(w.now()-1000, n, 1)...) {
		e := w.kong.all()[i]
		l := &audit.Letter{Entry: e, Outcome: audit.Parked, Code: "InternalFailure", Since: since}
		if err := h.Record(context.Background(), []audit.Record{{ID: id, Timestamp: e.Timestamp, Outcome: audit.Parked, Letter: l}}); err != nil {
			w.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// Neither an outage nor a wrong setting makes a dead letter of what is parked, however long.
func TestParkedDuringOutage(t *testing.T) {
	for name, put := range map[string]func(ctx context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error){
		"outage": down,
		"wrong setting": func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			return makeVerdicts(len(entries), "AccessDenied"), audit.Settingsf("allow it", "access denied")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, oldest())
				w.park(time.Now().Add(-30*time.Hour), 40)
				w.kong.add(w.now())
				w.sink.put = put
				for range 3 {
					begin := time.Now()
					if _, err := w.run(Request{Kind: Reconcile}); err == nil {
						t.Error("no error")
					}
					if w.store.count(audit.Parked) != 40 || w.store.count(audit.Dead) != 0 {
						t.Errorf("%d parked, %d dead", w.store.count(audit.Parked), w.store.count(audit.Dead))
					}
					if took := time.Since(begin); took > 5*time.Minute {
						t.Errorf("it took %s", took)
					}
				}
				if n := w.sink.putCalls(); n > 300 {
					t.Errorf("%d calls", n)
				}
				w.sink.put = nil
				if s := w.pass(Request{Kind: Reconcile}); s.Delivered != 41 {
					t.Errorf("%+v", s)
				}
				w.allOnce()
			})
		})
	}
}

// A parked entry on which the destination chokes does not keep the other parked
// ones from being delivered, and is dead after a day.
func TestParkedChoking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		ids := w.park(time.Now().Add(-23*time.Hour-30*time.Minute), 60)
		bad := []string{ids[0], ids[1], ids[40]}
		w.sink.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			if holds(entries, bad...) {
				return makeVerdicts(len(entries), "InternalFailure"), errCall
			}
			return w.sink.accept(entries), nil
		}
		if s := w.pass(Request{Kind: Reconcile}); s.Delivered != 57 || w.store.count(audit.Parked) != 3 {
			t.Errorf("%+v", s)
		}
		w.advance(time.Hour)
		w.kong.add(w.now())
		if s := w.pass(Request{Kind: Reconcile}); s.Delivered != 1 || s.Dead != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestParkedRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		ids := w.park(time.Now(), 3)
		w.sink.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			verdicts := w.sink.accept(entries)
			verdicts[1] = audit.Verdict{Status: audit.Refused, Code: "InvalidData", Reason: "now it says so"}
			return verdicts, nil
		}
		if s := w.pass(Request{Kind: Reconcile}); s.Dead != 1 || s.Delivered != 2 {
			t.Errorf("%+v", s)
		}
		if l := w.store.letters[ids[1]]; l.Outcome != audit.Dead || l.Code != "InvalidData" || l.Tries != 1 {
			t.Errorf("%+v", l)
		}
	})
}

// While the ledger does not record, nothing more is put; what was accepted is
// recorded once it does, and not put again.
func TestLedgerThatFailsForAWhile(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, oldest(), func(o *Options) { o.BatchEntries, o.Workers = 5, 3 })
			w.kong.delay, w.sink.delay = delay, 50*time.Millisecond
			from, to := time.Now().Add(200*time.Millisecond+3*delay), time.Now().Add(4*time.Minute)
			var failed time.Time
			w.store.record = func(int, []audit.Record) error {
				if now := time.Now(); now.After(from) && now.Before(to) {
					if failed.IsZero() {
						failed = now
					}
					return errors.New("connection refused")
				}
				return nil
			}
			w.kong.add(span(w.now()-900, 200, 4)...)
			if s := w.pass(Request{Kind: Reconcile}); s.Delivered != 200 {
				t.Errorf("%+v", s)
			}
			w.allOnce()
			for _, at := range w.sink.times {
				if at.After(failed) && at.Before(to) {
					t.Errorf("put %s after the ledger had failed", at.Sub(failed))
				}
			}
			if n := w.logs.count("ledger does not record"); n != 1 {
				t.Errorf("%d warnings", n)
			}
		})
	}
}

// A ledger that stays away ends the pass; what was accepted is repeated, not lost.
func TestLedgerThatStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.RecordFor = time.Minute })
		w.store.record = func(int, []audit.Record) error { return errors.New("connection refused") }
		w.kong.add(span(w.now()-900, 20, 4)...)
		begin := time.Now()
		s, err := w.run(Request{Kind: Reconcile})
		if err == nil || s.Delivered != 0 || s.Failed != 20 || w.store.saved().FullAt != 0 {
			t.Errorf("%v, %+v", err, s)
		}
		if took := time.Since(begin); took < time.Minute || took > 2*time.Minute {
			t.Errorf("it took %s", took)
		}
		w.store.record = nil
		w.pass(Request{Kind: Reconcile})
		w.allDelivered()
	})
}

func TestLookupThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		n := 0
		w.store.lookup = func() error {
			if n++; n == 3 {
				return errors.New("connection reset")
			}
			return nil
		}
		w.kong.add(span(w.now()-900, 100, 4)...)
		if s, err := w.run(Request{Kind: Reconcile}); err == nil || s.Complete {
			t.Errorf("%v, %+v", err, s)
		}
		w.pass(Request{Kind: Reconcile})
		w.allOnce()
	})
}

// Marks that cannot be saved for a while do not end the pass.
func TestMarksThatAreNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.delay = 2 * time.Second
		n := 0
		w.store.set = func() error {
			if n++; n < 4 {
				return errors.New("connection reset")
			}
			return nil
		}
		w.kong.add(span(w.now()-900, 100, 4)...)
		w.pass(Request{Kind: Reconcile})
		w.allOnce()
		if n < 4 || w.store.saved().FullAt == 0 {
			t.Errorf("%d saves, marks %+v", n, w.store.saved())
		}
	})
}

// A ledger that is emptied under a pass: everything again, nothing lost.
func TestLedgerEmptied(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		for _, at := range []time.Duration{0, time.Second, 3500 * time.Millisecond, 9 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newKong(), func(o *Options) { o.BatchEntries = 5 })
				w.kong.delay, w.sink.delay = 300*time.Millisecond, 700*time.Millisecond
				w.kong.add(span(w.now()-900, 100, 4)...)
				w.pass(Request{Kind: Reconcile})
				w.kong.add(span(w.now(), 20, 1)...)
				timer := time.AfterFunc(at, w.store.empty)
				defer timer.Stop()
				s := w.pass(Request{Kind: Reconcile, Full: true})
				if !s.Full {
					t.Errorf("%+v", s)
				}
				w.advance(20 * time.Second)
				w.pass(Request{Kind: Tail})
				w.allDelivered()
				for _, e := range w.kong.all() {
					if w.store.outcome(e.ID) != audit.Delivered {
						t.Errorf("%s is %s in the ledger", e.ID, w.store.outcome(e.ID))
					}
				}
			})
		}
	})
}

// A ledger that is emptied again and again: an error, not a loop.
func TestLedgerEmptiedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.add(w.now())
		w.store.lookup = func() error { return audit.ErrLedgerReplaced }
		if s, err := w.run(Request{Kind: Reconcile}); !errors.Is(err, audit.ErrLedgerReplaced) || s.Complete {
			t.Errorf("%v, %+v", err, s)
		}
	})
}

func TestBoundsOfFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		bytes, most, rows := 0, 0, 0
		w := newWorld(t, oldest(), func(o *Options) { o.Workers, o.FlightBytes, o.BatchBytes, o.PageSize = 4, 10_000, 3000, 20 })
		w.sink.put = func(ctx context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			size := 0
			for i := range entries {
				size += entries[i].Size()
			}
			mu.Lock()
			bytes, rows = bytes+size, max(rows, len(entries))
			most = max(most, bytes)
			mu.Unlock()
			if err := sleep(ctx, time.Second); err != nil {
				return nil, err
			}
			mu.Lock()
			bytes -= size
			mu.Unlock()
			return w.sink.accept(entries), nil
		}
		for i := range 100 {
			w.kong.addEntry(audit.Entry{RequestID: fmt.Sprint("x", i), Timestamp: w.now() - 200 + int64(i), Payload: string(make([]byte, i*30))})
		}
		w.pass(Request{Kind: Reconcile})
		w.allOnce()
		if w.sink.most > 4 || w.sink.most < 2 || most > 10_000+4*3500 || rows < 2 || rows > 100 {
			t.Errorf("%d calls, %d bytes at once, up to %d entries in one", w.sink.most, most, rows)
		}
	})
}

// One entry that is larger than anything allowed is put by itself.
func TestHugeEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.FlightBytes, o.BatchBytes = 10_000, 5000 })
		w.kong.add(span(w.now()-100, 30, 1)...)
		w.kong.addEntry(audit.Entry{RequestID: "huge", Timestamp: w.now() - 80, Payload: string(make([]byte, 50_000))})
		w.sink.delay = time.Second
		w.pass(Request{Kind: Reconcile})
		w.allOnce()
	})
}

func TestDetachedEntriesAreEqual(t *testing.T) {
	e := audit.Entry{ID: "a", RequestID: "b", Timestamp: 1, ClientIP: "c", Method: "d", Path: "e", Status: 2, TTL: 3, Workspace: "f", Payload: "g",
		RemovedFromPayload: "h", Signature: "i", RBACUserID: "j", RBACUserName: "k", RequestSource: "l", Unknown: "m", KongVersion: "n", Verification: audit.Verified}
	was := e
	if detach(&e); e != was {
		t.Errorf("%+v, was %+v", e, was)
	}
}

// In an outage with nothing else to put, nothing tells that a parked entry is to
// blame, so it stays parked, however long.
func TestParkedAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.park(time.Now().Add(-30*time.Hour), 3)
		w.sink.put = down
		for range 3 {
			if s := w.pass(Request{Kind: Reconcile}); s.Dead != 0 || w.store.count(audit.Parked) != 3 {
				t.Errorf("%+v", s)
			}
		}
		w.sink.put = nil
		w.pass(Request{Kind: Reconcile})
		w.allOnce()
	})
}
