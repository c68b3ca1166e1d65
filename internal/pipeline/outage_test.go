package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/delivery"
)

// busy returns a world with many entries: pages take 20 ms, calls 50 ms, and the
// destination takes 90 calls a second.
func busy(t testing.TB, entries int, change ...func(*Options)) *world {
	w := newWorld(t, oldest(), append(change, func(o *Options) { o.PageSize = 1000 })...)
	w.kong.delay = 20 * time.Millisecond
	w.destination.delay = 50 * time.Millisecond
	w.destination.turns = rate.NewLimiter(90, 2)
	for i := range entries / 10 {
		w.kong.add(span(w.now()-20_000+int64(i), 10, 0)...)
	}
	return w
}

// After an outage what waited is delivered as fast as the rate allows, and few
// calls are made in vain. Nothing is deferred for it.
func TestAfterOutage(t *testing.T) {
	for _, c := range []struct {
		entries      int
		after, lasts time.Duration
		failure      error
	}{
		{20_000, 0, 10 * time.Second, errCall},
		{50_000, 2 * time.Second, 10 * time.Second, errCall},
		{20_000, time.Second, 10 * time.Second, &audit.DestinationError{Err: errors.New("throttled")}},
		{20_000, time.Second, 60 * time.Second, errCall},
		{10_000, 1050 * time.Millisecond, 10 * time.Second, errCall}, // in the last batches
	} {
		t.Run(fmt.Sprintf("after %s, %s, %T", c.after, c.lasts, c.failure), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				entries := c.entries
				w := busy(t, entries)
				from, to := time.Now().Add(c.after), time.Now().Add(c.after+c.lasts)
				var mu sync.Mutex
				before := 0
				w.destination.put = func(_ context.Context, _ int, list []audit.Entry) ([]audit.Verdict, error) {
					now := time.Now()
					if !now.Before(from) && now.Before(to) {
						return makeVerdicts(len(list), "ServiceUnavailable"), c.failure
					}
					mu.Lock()
					defer mu.Unlock()
					if now.Before(from) {
						before += len(list)
					}
					return w.destination.accept(list), nil
				}
				if s := w.pass(Request{Kind: audit.Reconcile}); s.Delivered != entries || s.Deferred+s.Dead != 0 {
					t.Errorf("%+v", s)
				}
				w.allOnce()
				took, allowed := time.Since(to), time.Duration(entries-before)*time.Second/9000
				needed := entries / 100
				t.Logf("%d entries waited and took %s, the rate allows %s; %d calls, %d needed", entries-before, took, allowed, w.destination.putCalls(), needed)
				if limit := max(allowed*13/10, allowed+maxProbe+100*time.Millisecond); took > limit {
					t.Errorf("what waited took %s, the rate allows %s", took, allowed)
				}
				vain := 40 // eight calls in flight when it begins, and a probe a second; with slack for a busy machine
				if c.lasts > 10*time.Second {
					vain += int((c.lasts - 10*time.Second) / (maxProbe * 3 / 4))
				}
				if n := w.destination.putCalls(); n > needed+vain {
					t.Errorf("%d calls, %d needed", n, needed)
				}
			})
		})
	}
}

// Events that are refused here and there are put again in full batches.
func TestScatteredRefusals(t *testing.T) {
	for _, c := range []struct {
		percent, calls int
		page           time.Duration
	}{
		{2, 560, 20 * time.Millisecond},
		{2, 560, 500 * time.Millisecond},
		{30, 850, 20 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%d percent, pages of %s", c.percent, c.page), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const entries = 50_000
				w := busy(t, entries)
				w.kong.delay = c.page
				var mu sync.Mutex
				r := rand.New(rand.NewPCG(1, 2))
				w.destination.put = func(_ context.Context, _ int, list []audit.Entry) ([]audit.Verdict, error) {
					mu.Lock()
					defer mu.Unlock()
					verdicts := w.destination.accept(nil)
					for i := range list {
						if r.IntN(100) < c.percent {
							verdicts = append(verdicts, audit.Verdict{Code: "Throttling"})
						} else {
							verdicts = append(verdicts, w.destination.accept(list[i:i+1])...)
						}
					}
					return verdicts, nil
				}
				begin := time.Now()
				if s := w.pass(Request{Kind: audit.Reconcile}); s.Delivered != entries || s.Deferred+s.Dead != 0 {
					t.Errorf("%+v", s)
				}
				w.allOnce()
				t.Logf("%d calls in %s", w.destination.putCalls(), time.Since(begin))
				if n := w.destination.putCalls(); n > c.calls {
					t.Errorf("%d calls, want at most %d", n, c.calls)
				}
				if took := time.Since(begin); c.percent == 2 && c.page < 100*time.Millisecond && took > 6500*time.Millisecond {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

// A lone entry that is refused once is put again soon.
func TestRefusalOfALoneEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.destination.put = func(_ context.Context, n int, list []audit.Entry) ([]audit.Verdict, error) {
			if n == 1 {
				return makeVerdicts(len(list), "Throttling"), nil
			}
			return w.destination.accept(list), nil
		}
		w.kong.add(w.now())
		begin := time.Now()
		w.pass(Request{Kind: audit.Reconcile})
		if took := time.Since(begin); took > 2*firstBackoff {
			t.Errorf("it took %s", took)
		}
		w.allOnce()
	})
}

// A batch on which the destination chokes does not hold up the others.
func TestChokingHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const entries = 20_000
		w := busy(t, entries)
		bad := w.kong.all()[entries/3].ID
		var last time.Time
		var mu sync.Mutex
		w.destination.put = func(_ context.Context, _ int, list []audit.Entry) ([]audit.Verdict, error) {
			if holds(list, bad) {
				return makeVerdicts(len(list), "InternalFailure"), errCall
			}
			mu.Lock()
			defer mu.Unlock()
			if len(list) == 100 {
				last = time.Now()
			}
			return w.destination.accept(list), nil
		}
		begin := time.Now()
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Delivered != entries-1 || s.Deferred != 1 || s.Dead != 0 || s.Reason == "" {
			t.Errorf("%+v", s)
		}
		if took, allowed := last.Sub(begin), entries*time.Second/9000; took > allowed*11/10 {
			t.Errorf("the others took %s, the rate allows %s", took, allowed)
		}
		// 200 would do for all; the rest narrows the batch down to the entry, between the others.
		if n := w.destination.putCalls(); n > 275 {
			t.Errorf("%d calls", n)
		}
	})
}

// Batches are not split for throttling, and the log does not name every entry.
func TestThrottledCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.PageSize = 1000 })
		w.kong.add(span(w.now()-4000, 3000, 1)...)
		sizes := map[int]int{}
		var mu sync.Mutex
		healthy := time.Now().Add(time.Minute)
		throttled := func(_ context.Context, _ int, list []audit.Entry) ([]audit.Verdict, error) {
			mu.Lock()
			defer mu.Unlock()
			sizes[len(list)]++
			if time.Now().Before(healthy) {
				return makeVerdicts(len(list), "ThrottlingException"), &audit.DestinationError{Err: errors.New("ThrottlingException: rate exceeded")}
			}
			return w.destination.accept(list), nil
		}
		w.destination.put = throttled
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Delivered != 3000 || s.Deferred+s.Dead != 0 {
			t.Errorf("%+v", s)
		}
		w.allOnce()
		if len(sizes) > 3 || sizes[100] < 90 || w.destination.putCalls() > 30+8+80 { // pages overlap by two rows
			t.Errorf("calls by size: %v", sizes)
		}
		// For good: the pass ends, and defers nothing.
		healthy = time.Now().Add(time.Hour)
		w.kong.add(span(w.now()-10, 300, 0)...)
		if s, err := w.run(Request{Kind: audit.Reconcile}); !errors.Is(err, delivery.ErrUnavailable) || s.Deferred+s.Dead != 0 {
			t.Errorf("%v, %+v", err, s)
		}
		if n := w.logs.count("\n"); n > 20 {
			t.Errorf("%d lines in the log", n)
		}
	})
}

// With a destination that takes large calls, a batch is put at the end of each page
// unless the next page is there, and Kong's pages alone say how long a pass takes.
func TestLargeCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const entries = 50_000
		w := busy(t, entries, func(o *Options) { o.BatchEntries, o.BatchBytes = 10_000, 500_000 })
		w.destination.delay, w.destination.turns = 20*time.Millisecond, nil
		begin := time.Now()
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
		if took := time.Since(begin); took > 1150*time.Millisecond {
			t.Errorf("it took %s", took)
		}
		if n := w.destination.putCalls(); n > 60 {
			t.Errorf("%d calls", n)
		}
	})
}
