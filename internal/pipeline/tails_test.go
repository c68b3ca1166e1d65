package pipeline

import (
	"context"
	"errors"
	"sync"
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
			w.kong.hook = func(n int, _ audit.Query) error {
				mu.Lock()
				defer mu.Unlock()
				if n == 6 {
					fresh, at = w.kong.add(w.now())[0], time.Now()
				}
				return nil
			}
			w.sink.put = func(ctx context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
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
				return w.sink.accept(entries), nil
			}
			asked := false
			s := w.pass(Request{Kind: Reconcile, TailWanted: func(ctx context.Context) error {
				for {
					if err := sleep(ctx, 10*time.Millisecond); err != nil {
						return err
					}
					mu.Lock()
					wanted := fresh != "" && !asked
					asked = asked || wanted
					mu.Unlock()
					if wanted {
						return nil
					}
				}
			}})
			// A tick and two pages: it waits for no page and for no put of the walk.
			if !asked || served.Sub(at) > 220*time.Millisecond {
				t.Errorf("the new row was put after %s", served.Sub(at))
			}
			if s.Delivered != 301 {
				t.Errorf("%+v", s)
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
		wanted := true
		_, err := w.p.Run(ctx, Request{Kind: Reconcile, TailWanted: func(ctx context.Context) error {
			if !wanted {
				<-ctx.Done()
				return ctx.Err()
			}
			wanted = false
			return sleep(ctx, 300*time.Millisecond)
		}})
		if err == nil {
			t.Error("the pass was complete")
		}
		if cursor := w.store.saved().Cursor; w.sink.got(fresh) != 0 || cursor == 0 || cursor >= at {
			t.Errorf("the cursor is at %d, and %d was delivered %d times", cursor, at, w.sink.got(fresh))
		}
	})
}

// Word that another relay leaves while a reconcile is under way brings a tail.
func TestWordWithinReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.add(span(w.now()-8000, 100, 20)...)
		other := &handle{store: w.store}
		w.kong.delay = 100 * time.Millisecond
		var left, told time.Time
		w.kong.hook = func(n int, _ audit.Query) error {
			if n == 4 {
				left = time.Now()
				if _, err := other.Acquire(t.Context(), true); !errors.Is(err, audit.ErrLeaseHeld) {
					t.Errorf("acquired: %v", err)
				}
			}
			return nil
		}
		before := w.pass(Request{Kind: Reconcile, Word: func(context.Context) {
			if !told.IsZero() {
				t.Error("told twice")
			}
			told = time.Now()
		}})
		if told.Sub(left) > wordEvery || told.IsZero() || before.Kind != Reconcile {
			t.Errorf("told after %s, %+v", told.Sub(left), before)
		}
		w.allOnce()
	})
}

// Word that is left at the very end makes the holder go round once more.
func TestWordMakesHolderGoRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.add(span(w.now()-800, 25, 20)...)
		w.sink.delay = time.Second
		other := &handle{store: w.store}
		told, left := 0, false
		w.opts.Observer.Delivered = func([]audit.Entry) { // after the last page
			if !left {
				left = true
				w.kong.add(w.now())
				if _, err := other.Acquire(t.Context(), true); !errors.Is(err, audit.ErrLeaseHeld) {
					t.Errorf("acquired: %v", err)
				}
			}
		}
		w.restart()
		s := w.pass(Request{Kind: Reconcile, Word: func(context.Context) { told++ }})
		if told != 1 || s.Delivered != 26 || s.Kind != Reconcile || !s.Full || s.Word {
			t.Errorf("told %d times, %+v", told, s)
		}
		w.allOnce()
		if _, err := other.Acquire(t.Context(), true); err != nil {
			t.Errorf("lease was not given up: %v", err)
		}
	})
}

// Others that leave word for ever do not keep a run from ending.
func TestWordForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.delay = time.Second
		other := &handle{store: w.store}
		w.kong.hook = func(int, audit.Query) error {
			if _, err := other.Acquire(t.Context(), true); !errors.Is(err, audit.ErrLeaseHeld) {
				t.Errorf("acquired: %v", err)
			}
			return nil
		}
		w.kong.add(w.now())
		begin := time.Now()
		if s := w.pass(Request{Kind: Reconcile}); !s.Word {
			t.Errorf("%+v", s)
		}
		if took := time.Since(begin); took > 2*roundsFor {
			t.Errorf("ended after %s", took)
		}
		if _, err := other.Acquire(t.Context(), true); err != nil {
			t.Errorf("lease was not given up: %v", err)
		}
	})
}
