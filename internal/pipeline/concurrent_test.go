package pipeline

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// A trigger is served beside the walk of a pass, whatever that is waiting for.
func TestTailWithinReconcile(t *testing.T) {
	for _, newKong := range []func() *kong{oldest, newest} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong(), func(o *Options) { o.BatchEntries, o.Workers = 4, 1 })
			w.kong.add(span(w.now()-8000, 300, 20)...)
			w.kong.delay = 100 * time.Millisecond
			var mu sync.Mutex
			var fresh string
			var at, served time.Time
			asked := false
			w.kong.hook = func(n int, _ audit.Query) error {
				mu.Lock()
				defer mu.Unlock()
				if n == 6 {
					fresh, at = w.kong.add(w.now())[0], time.Now()
				}
				return nil
			}
			w.destination.put = func(ctx context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
				mu.Lock()
				wanted := holds(entries, fresh)
				if wanted {
					served = time.Now()
				}
				mu.Unlock()
				if !wanted {
					if err := sleep(ctx, 10*time.Second); err != nil { // all that the walk puts
						return nil, err
					}
				}
				return w.destination.accept(entries), nil
			}
			var tails sync.WaitGroup
			var tail Summary
			tails.Go(func() {
				for {
					w.advance(10 * time.Millisecond)
					mu.Lock()
					asked = fresh != ""
					mu.Unlock()
					if asked {
						tail = w.pass(Request{Kind: audit.Tail})
						return
					}
				}
			})
			s := w.pass(Request{Kind: audit.Reconcile})
			tails.Wait()
			// A tick and two pages: it waits for no page and for no put of the walk.
			if !asked || served.Sub(at) > 220*time.Millisecond {
				t.Errorf("the new row was put after %s", served.Sub(at))
			}
			if s.Delivered != 301 || !tail.Complete {
				t.Errorf("%+v, beside it %+v", s, tail)
			}
			w.allOnce()
		})
	}
}

// What a tail is busy with is not behind the marks, although the walk has gone past it.
func TestMarksStayBehindTails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var fresh string
		w := newWorld(t, oldest(), func(o *Options) {
			o.BatchEntries = 5
			o.Prepare = func(e *audit.Entry) {
				if e.RequestID == fresh {
					_ = sleep(context.Background(), 20*time.Second) // the tail has it, and no batch yet
				}
			}
		})
		w.kong.add(span(w.now()-2600, 60, 30)...) // before what a tail reads
		at := w.now() - 200
		fresh = w.kong.add(at)[0]
		w.kong.add(span(at+1, 199, 1)...) // for two seconds, in which marks are saved
		w.kong.delay = 100 * time.Millisecond
		defer time.AfterFunc(10*time.Second, cancel).Stop() // by then the walk is at its end
		var tails sync.WaitGroup
		tails.Go(func() {
			w.advance(300 * time.Millisecond)
			_, _ = w.p.Run(ctx, Request{Kind: audit.Tail}) // the pass says what became of it
		})
		_, err := w.p.Run(ctx, Request{Kind: audit.Reconcile})
		tails.Wait()
		if err == nil {
			t.Error("the pass was complete")
		}
		if cursor := w.store.saved().Cursor; w.destination.got(fresh) != 0 || cursor == 0 || cursor >= at {
			t.Errorf("the cursor is at %d, and %d was delivered %d times", cursor, at, w.destination.got(fresh))
		}
	})
}

// A rerun that another process requests at the very end is reported, and the lease is
// given up all the same.
func TestRerunRequestedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.add(span(w.now()-800, 25, 20)...)
		w.destination.delay = time.Second
		other := &handle{store: w.store}
		requested := false
		w.opts.Observer.Delivered = func([]audit.Entry) { // after the last page
			if !requested {
				requested = true
				if _, err := other.Acquire(t.Context(), true); !errors.Is(err, audit.ErrLeaseHeld) {
					t.Errorf("acquired: %v", err)
				}
			}
		}
		w.restart()
		if s := w.pass(Request{Kind: audit.Reconcile}); !s.Rerun || s.Delivered != 25 {
			t.Errorf("%+v", s)
		}
		w.allOnce()
		if _, err := other.Acquire(t.Context(), true); err != nil {
			t.Errorf("lease was not given up: %v", err)
		}
	})
}

// A log without order cannot be read beside a reconcile.
func TestNoTailBesideAnUnorderedReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, unordered())
		w.kong.add(span(w.now()-8000, 100, 20)...)
		w.kong.delay = 100 * time.Millisecond
		done := make(chan error, 1)
		go func() {
			w.advance(time.Second)
			_, err := w.p.Run(t.Context(), Request{Kind: audit.Tail})
			done <- err
		}()
		w.pass(Request{Kind: audit.Reconcile})
		if err := <-done; !errors.Is(err, ErrUnordered) {
			t.Errorf("%v", err)
		}
		w.allOnce()
	})
}

// A tail beside an oldest-first walk that has to read newest first: the cursor
// must not pass what it has in flight.
func TestMarksStayBehindATailOfAnotherOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var stuck atomic.Int64 // oldest timestamp that the tail has in flight
		w := newWorld(t, oldest(), func(o *Options) { o.BatchEntries = 100; o.Grace = time.Second })
		urgent := newDestination()
		urgent.put = func(ctx context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			for _, e := range entries {
				if s := stuck.Load(); s == 0 || e.Timestamp < s {
					stuck.Store(e.Timestamp)
				}
			}
			<-ctx.Done() // the destination does not answer
			return make([]audit.Verdict, len(entries)), ctx.Err()
		}
		w.opts.UrgentDestination = urgent
		w.restart()
		w.kong.add(span(w.now()-2600, 80, 30)...) // before what a tail reads
		w.kong.add(span(w.now()-240, 60, 4)...)   // of which the tail has 60
		w.kong.delay = 100 * time.Millisecond
		var tailing atomic.Bool
		w.kong.reorder = func(_ int, q audit.Query, rows []audit.Entry) {
			// Another node, which does not sort, answers the tail's first page.
			if q.Ascending && tailing.Load() && q.After > w.now()-700 && len(rows) > 1 {
				rows[0], rows[1] = rows[1], rows[0]
				tailing.Store(false)
			}
		}
		defer time.AfterFunc(20*time.Second, cancel).Stop() // by then the walk is at its end
		var tails sync.WaitGroup
		tails.Go(func() {
			w.advance(300 * time.Millisecond)
			tailing.Store(true)
			_, _ = w.p.Run(ctx, Request{Kind: audit.Tail}) // the pass says what became of it
		})
		_, _ = w.p.Run(ctx, Request{Kind: audit.Reconcile}) // cut short
		tails.Wait()
		cursor := w.store.saved().Cursor
		if stuck.Load() == 0 {
			t.Fatal("no tail")
		}
		if cursor >= stuck.Load() {
			t.Errorf("the cursor %d has passed entries from %d on that nobody accepted", cursor, stuck.Load())
		}
	})
}
