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
	"github.com/kong-cloudtrail/relay/internal/delivery"
)

var errCall = errors.New("500 Internal Server Error")

func holds(entries []audit.Entry, ids ...string) bool {
	return slices.ContainsFunc(entries, func(e audit.Entry) bool { return slices.Contains(ids, e.ID) })
}

// Whatever heals is put again until it has: nothing is lost, and nothing that the
// destination told of is put twice.
func TestWhatHeals(t *testing.T) {
	for name, put := range map[string]func(s *destination, r *rand.Rand, entries []audit.Entry) ([]audit.Verdict, error){
		"events that throttle": func(s *destination, r *rand.Rand, entries []audit.Entry) ([]audit.Verdict, error) {
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
		"calls that fail": func(s *destination, r *rand.Rand, entries []audit.Entry) ([]audit.Verdict, error) {
			if r.IntN(2) == 0 {
				return make([]audit.Verdict, len(entries)), errCall
			}
			return s.accept(entries), nil
		},
		"calls that fail half-way": func(s *destination, r *rand.Rand, entries []audit.Entry) ([]audit.Verdict, error) {
			n := r.IntN(len(entries) + 1)
			return append(s.accept(entries[:n]), make([]audit.Verdict, len(entries)-n)...), errCall
		},
		"entries left out": func(s *destination, r *rand.Rand, entries []audit.Entry) ([]audit.Verdict, error) {
			n := r.IntN(len(entries) + 1)
			return append(make([]audit.Verdict, n), s.accept(entries[n:])...), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, oldest(), func(o *Options) { o.BatchEntries = 7 })
				var mu sync.Mutex
				r := rand.New(rand.NewPCG(1, 2))
				w.destination.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
					mu.Lock()
					defer mu.Unlock()
					return put(w.destination, r, entries)
				}
				w.kong.add(span(w.now()-900, 200, 4)...)
				if s := w.pass(Request{Kind: audit.Reconcile}); s.RetriedCalls == 0 || s.Dead+s.Deferred != 0 {
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
		w.destination.put = func(_ context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error) {
			verdicts := w.destination.accept(entries)
			if n == 1 {
				return slices.Repeat([]audit.Verdict{{AnswerLost: true}}, len(entries)), errors.New("connection reset")
			}
			return verdicts, nil
		}
		ids := w.kong.add(w.now(), w.now())
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Repeated != 2 || s.Delivered != 2 {
			t.Errorf("%+v", s)
		}
		if w.destination.got(ids[0]) != 2 {
			t.Error("not put again")
		}
	})
}

func TestWrongNumberOfVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.destination.put = func(_ context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error) {
			if n == 1 {
				return nil, nil
			}
			return w.destination.accept(entries), nil
		}
		w.kong.add(w.now())
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
	})
}

// What is refused for good is a dead letter, and stops nobody.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.Prepare = func(e *audit.Entry) { e.Path = "/redacted" } })
		ids := w.kong.add(span(w.now()-300, 100, 3)...)
		bad := ids[33]
		w.destination.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			verdicts := make([]audit.Verdict, len(entries))
			for i := range entries {
				if entries[i].ID == bad {
					verdicts[i] = audit.Verdict{Status: audit.Rejected, Code: "InvalidData", Reason: "no good"}
				} else {
					verdicts[i] = w.destination.accept(entries[i : i+1])[0]
				}
			}
			return verdicts, nil
		}
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Dead != 1 || s.Delivered != 99 {
			t.Errorf("%+v", s)
		}
		if l := w.store.letters[bad]; l.Outcome != audit.Dead || l.Code != "InvalidData" || l.Reason != "no good" || l.Tries != 1 ||
			l.Entry.ID != bad || l.Entry.Path != "/redacted" || !l.Since.Equal(time.Now()) {
			t.Errorf("%+v", l)
		}
		calls := w.destination.putCalls()
		if s := w.pass(Request{Kind: audit.Reconcile, Full: true}); s.New != 0 || w.destination.putCalls() != calls {
			t.Errorf("%+v", s)
		}
		if w.store.saved().Cursor < w.now()-5 {
			t.Error("the cursor did not pass the dead letter")
		}
	})
}

// A setting that is wrong stops the pass, makes a dead letter of nothing, and keeps what was accepted.
func TestWrongSetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.BatchEntries = 5 })
		w.destination.put = func(_ context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error) {
			if n < 3 {
				return w.destination.accept(entries), nil
			}
			verdicts := append(w.destination.accept(entries[:2]), make([]audit.Verdict, len(entries)-2)...)
			return verdicts, audit.SettingsErrorf("set CHANNEL_ARN", "channel not found")
		}
		w.kong.add(span(w.now()-300, 100, 3)...)
		begin := time.Now()
		s, err := w.run(Request{Kind: audit.Reconcile})
		var settings *audit.SettingsError
		if !errors.As(err, &settings) || audit.Hint(settings) != "set CHANNEL_ARN" || s.Complete {
			t.Fatalf("%v, %+v", err, s)
		}
		if time.Since(begin) > time.Second {
			t.Error("it was tried again")
		}
		if s.Dead+s.Deferred+len(w.store.letters) != 0 || w.store.count(audit.Delivered) != len(w.destination.ids()) {
			t.Errorf("%+v, %d recorded of %d", s, w.store.count(audit.Delivered), len(w.destination.ids()))
		}
		w.destination.put = nil
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
	})
}

// An outage makes a dead letter of and parks nothing, whether it begins before or during a pass.
func TestOutage(t *testing.T) {
	for _, from := range []int{1, 2} {
		for _, batch := range []int{1, 5, 100} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, oldest(), func(o *Options) { o.BatchEntries, o.Workers = batch, 3 })
				w.kong.delay = 300 * time.Millisecond
				w.destination.put = func(ctx context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error) {
					if n >= from {
						return down(ctx, n, entries)
					}
					return w.destination.accept(entries), nil
				}
				w.kong.add(span(w.now()-400, 130, 3)...)
				for range 3 {
					s, err := w.run(Request{Kind: audit.Reconcile})
					if !errors.Is(err, delivery.ErrUnavailable) || s.Complete || s.Left == "" {
						t.Fatalf("%v, %+v", err, s)
					}
					if s.Dead+w.store.count(audit.Dead) != 0 || s.Deferred > 0 && batch > 1 {
						t.Errorf("%+v", s)
					}
				}
				w.destination.put = nil
				w.pass(Request{Kind: audit.Reconcile})
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
					w.destination.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
						if holds(entries, bad) {
							return makeVerdicts(len(entries), "InternalFailure"), errCall
						}
						return w.destination.accept(entries), nil
					}
					// Where nothing else is put in the meantime, a pass cannot tell it from an outage;
					// the next one has more to go by.
					for range 3 {
						_, err := w.run(Request{Kind: audit.Reconcile})
						if err == nil {
							break
						}
						if !errors.Is(err, delivery.ErrUnavailable) {
							t.Fatal(err)
						}
						w.kong.add(w.now())
					}
					for _, e := range w.kong.all() {
						want := 1
						if e.ID == bad {
							want = 0
						}
						if n := w.destination.got(e.ID); n != want {
							t.Errorf("%s was delivered %d times, want %d", e.ID, n, want)
						}
					}
					if l, ok := w.store.letters[bad]; !ok || l.Outcome != audit.Deferred || len(w.store.letters) != 1 || l.Code != "InternalFailure" {
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

func TestBoundsOfFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		bytes, most, rows := 0, 0, 0
		w := newWorld(t, oldest(), func(o *Options) { o.Workers, o.FlightBytes, o.BatchBytes, o.PageSize = 4, 10_000, 3000, 20 })
		w.destination.put = func(ctx context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
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
			return w.destination.accept(entries), nil
		}
		for i := range 100 {
			w.kong.addEntry(audit.Entry{RequestID: fmt.Sprint("x", i), Timestamp: w.now() - 200 + int64(i), Payload: string(make([]byte, i*30))})
		}
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
		if w.destination.most > 4 || w.destination.most < 2 || most > 10_000+4*3500 || rows < 2 || rows > 100 {
			t.Errorf("%d calls, %d bytes at once, up to %d entries in one", w.destination.most, most, rows)
		}
	})
}

// One entry that is larger than anything allowed is put by itself.
func TestHugeEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.FlightBytes, o.BatchBytes = 10_000, 5000 })
		w.kong.add(span(w.now()-100, 30, 1)...)
		w.kong.addEntry(audit.Entry{RequestID: "huge", Timestamp: w.now() - 80, Payload: string(make([]byte, 50_000))})
		w.destination.delay = time.Second
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
	})
}
