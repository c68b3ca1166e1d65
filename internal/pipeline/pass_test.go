package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// afters are the times that queries of a walk began from, without probes.
func afters(queries []audit.Query) []int64 {
	var list []int64
	for _, q := range queries {
		if q.After != farFuture {
			list = append(list, q.After)
		}
	}
	return list
}

func TestFloors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.PageSize = 1000 })
		floor := func(req Request) int64 {
			t.Helper()
			before := len(w.kong.queries())
			w.pass(req)
			list := afters(w.kong.queries()[before:])
			if len(list) == 0 || list[0] == 0 {
				return 0
			}
			return list[0] + 1 // queries begin a second early
		}
		expect := func(what string, got, want int64) {
			t.Helper()
			if got != want {
				t.Errorf("%s: floor is %d, want %d", what, got, want)
			}
		}
		w.kong.add(span(w.now()-3600, 100, 30)...)
		expect("first pass is full", floor(Request{Kind: Tail}), 0)
		start := w.now()
		cursor := w.store.saved().Cursor
		expect("first tail is wide", floor(Request{Kind: Tail}), cursor-300)
		expect("tail", floor(Request{Kind: Tail}), cursor-5)
		w.advance(wideEvery - time.Second)
		expect("tail soon after", floor(Request{Kind: Tail}), cursor-5)
		w.advance(time.Second)
		expect("tail after a while", floor(Request{Kind: Tail}), cursor-300)
		expect("and then", floor(Request{Kind: Tail}), cursor-5)

		w.kong.add(w.now())
		expect("tail before a new row", floor(Request{Kind: Tail}), cursor-5)
		expect("reconcile", floor(Request{Kind: Reconcile}), start-25*3600)
		if m := w.store.saved(); m.FullAt != start || m.ReconciledThrough != w.now() {
			t.Errorf("marks %+v", m)
		}
		through := w.store.saved()
		w.advance(23 * time.Hour)
		w.kong.add(w.now())
		w.pass(Request{Kind: Tail})
		expect("reconcile from the older mark", floor(Request{Kind: Reconcile}), min(through.Cursor, through.ReconciledThrough)-25*3600)
		w.advance(time.Hour)
		expect("full once a day", floor(Request{Kind: Reconcile}), 0)
		expect("and not again", floor(Request{Kind: Reconcile}), min(w.store.saved().Cursor, w.now())-25*3600)
		expect("full on request", floor(Request{Kind: Reconcile, Full: true}), 0)

		// After days of outage a reconcile goes on from where the last one was.
		m := w.store.saved()
		w.advance(23*time.Hour + 50*time.Minute)
		expect("reconcile after a pause", floor(Request{Kind: Reconcile}), min(m.Cursor, m.ReconciledThrough)-25*3600)

		w.store.empty()
		expect("full after a lost ledger", floor(Request{Kind: Tail}), 0)
		w.allDelivered()
	})
}

// allDelivered checks that the destination has every row, however often.
func (w *world) allDelivered() {
	w.t.Helper()
	for _, e := range w.kong.all() {
		if w.sink.got(e.ID) == 0 {
			w.t.Errorf("row %s of %d was not delivered", e.ID, e.Timestamp)
		}
	}
}

func TestDaysOfOutage(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong(), func(o *Options) { o.PageSize = 100 })
			w.kong.add(span(w.now()-3600, 100, 36)...)
			w.pass(Request{Kind: Reconcile})
			w.kong.add(span(w.now(), 500, 500)...)
			w.advance(3 * 24 * time.Hour)
			w.restart()
			if s := w.pass(Request{Kind: Reconcile}); s.New != 500 {
				t.Errorf("%+v", s)
			}
			w.allOnce()
		})
	})
}

// With much retained and little new, a pass costs what is new.
func TestTailCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.PageSize = 1000 })
		w.kong.add(span(w.now()-200_000, 20_000, 10)...)
		w.pass(Request{Kind: Reconcile})
		w.restart()
		w.kong.add(span(w.now(), 1000, 0)...)
		w.advance(time.Second)
		if s := w.pass(Request{Kind: Tail}); s.Pages > 3 || s.Delivered != 1000 {
			t.Errorf("%+v", s)
		}
		if s := w.pass(Request{Kind: Reconcile}); s.Pages > 90_000/10/1000+4 {
			t.Errorf("%+v", s)
		}
	})
}

// cutAt cancels a pass before its nth page.
func (w *world) cutAt(n int) {
	w.kong.hook = func(int, audit.Query) error {
		if n--; n <= 0 {
			return audit.Settingsf("", "cut")
		}
		return nil
	}
}

func TestCutReconcileGoesOn(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong())
			w.kong.add(span(w.now()-4000, 200, 10)...)
			w.cutAt(12)
			if _, err := w.run(Request{Kind: Reconcile}); err == nil {
				t.Fatal("not cut")
			}
			r := w.store.saved().Resume
			if r == nil || !r.Full || w.store.saved().FullAt != 0 {
				t.Fatalf("marks %+v", w.store.saved())
			}
			began := r.Started
			w.restart()
			w.advance(time.Hour)
			w.cutAt(9)
			if _, err := w.run(Request{Kind: Reconcile}); err == nil {
				t.Fatal("not cut")
			}
			w.restart()
			w.kong.hook = nil
			w.kong.add(w.now())
			s := w.pass(Request{Kind: Reconcile})
			if !s.Full || s.Pages > 12 {
				t.Errorf("did not go on where it was cut: %+v", s)
			}
			if w.logs.count("going on where") != 2 {
				t.Error("went on from elsewhere")
			}
			if m := w.store.saved(); m.Resume != nil || m.FullAt != began || m.ReconciledThrough != began {
				t.Errorf("marks %+v, want those of %d", m, began)
			}
			w.pass(Request{Kind: Tail})
			w.allOnce()
		})
	})
}

func TestCutReconcileWithStaleOffset(t *testing.T) {
	for _, newKong := range []func() *kong{newest, unordered} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong())
			w.kong.add(span(w.now()-4000, 100, 10)...)
			w.cutAt(8)
			if _, err := w.run(Request{Kind: Reconcile}); err == nil {
				t.Fatal("not cut")
			}
			w.restart()
			refused := 0
			w.kong.hook = func(_ int, q audit.Query) error {
				if q.Offset != "" && refused == 0 {
					refused++
					return fmt.Errorf("%w: 400", audit.ErrBadOffset)
				}
				return nil
			}
			w.pass(Request{Kind: Reconcile})
			w.allOnce()
			if refused != 1 {
				t.Error("the offset was not tried")
			}
		})
	}
}

// Kong was changed for another release while a reconcile was cut.
func TestCutReconcileWithOtherOrder(t *testing.T) {
	kinds := []func() *kong{
		oldest, newest, unordered,
		func() *kong { return &kong{sorts: true, positional: true} }, func() *kong { return &kong{positional: true} },
		func() *kong { return &kong{sorts: true, filters: true, positional: true} },
	}
	for i, from := range kinds {
		for j, to := range kinds {
			t.Run(fmt.Sprintf("%d to %d", i, j), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, from())
					w.kong.add(span(w.now()-4000, 200, 10)...)
					w.cutAt(10)
					if _, err := w.run(Request{Kind: Reconcile}); err == nil {
						t.Fatal("not cut")
					}
					w.kong.hook = nil
					now := to()
					w.kong.sorts, w.kong.filters, w.kong.positional, w.kong.sorted = now.sorts, now.filters, now.positional, nil
					w.restart()
					w.pass(Request{Kind: Reconcile})
					w.allOnce()
				})
			})
		}
	}
}

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
				if _, err := other.Acquire(t.Context()); !errors.Is(err, audit.ErrLeaseHeld) {
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
				if _, err := other.Acquire(t.Context()); !errors.Is(err, audit.ErrLeaseHeld) {
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
		if _, err := other.Acquire(t.Context()); err != nil {
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
			if _, err := other.Acquire(t.Context()); !errors.Is(err, audit.ErrLeaseHeld) {
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
		if _, err := other.Acquire(t.Context()); err != nil {
			t.Errorf("lease was not given up: %v", err)
		}
	})
}

// Near a deadline no batch is started, Left says what was not done, and the next
// reconcile goes on there.
func TestOutOfTime(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong(), func(o *Options) { o.BatchEntries, o.Workers = 10, 2 })
			w.kong.add(span(w.now()-5000, 300, 10)...)
			w.kong.delay = 2 * time.Second
			w.sink.delay = 3 * time.Second
			rounds := 0
			for ; rounds < 20; rounds++ {
				if rounds > 0 {
					w.restart()
				}
				ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
				s, err := w.p.Run(ctx, Request{Kind: Reconcile})
				if ctx.Err() != nil {
					t.Error("the deadline passed")
				}
				cancel()
				if err == nil {
					break
				}
				if !errors.Is(err, ErrOutOfTime) || s.Complete || s.Left == "" {
					t.Fatalf("%v, %+v", err, s)
				}
				if w.kong.filters && !strings.HasPrefix(s.Left, "entries after ") {
					t.Errorf("left: %s", s.Left)
				}
			}
			if rounds < 2 || rounds == 20 {
				t.Errorf("%d rounds were cut", rounds)
			}
			w.pass(Request{Kind: Tail})
			w.allOnce()
			if w.store.saved().FullAt == 0 {
				t.Error("the reconcile never became complete")
			}
		})
	})
}

// Told to stop, a pass records what is in flight and starts nothing more.
func TestCancel(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong(), func(o *Options) { o.BatchEntries = 5 })
			w.kong.add(span(w.now()-5000, 300, 10)...)
			w.kong.delay = time.Second
			w.sink.delay = 4 * time.Second
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, nil)
			defer cancel()
			stopped := time.Time{}
			timer := time.AfterFunc(10500*time.Millisecond, func() { stopped = time.Now(); cancel() })
			defer timer.Stop()
			s, err := w.p.Run(ctx, Request{Kind: Reconcile})
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("%v", err)
			}
			if took := time.Since(stopped); took > 5*time.Second {
				t.Errorf("stopped after %s", took)
			}
			for _, at := range w.sink.times {
				if at.After(stopped) {
					t.Error("a put was started after the end")
				}
			}
			if n := w.store.count(audit.Delivered); n != len(w.sink.ids()) || n == 0 || s.Delivered != n {
				t.Errorf("%d recorded of %d accepted, %+v", n, len(w.sink.ids()), s)
			}
			if _, err := (&handle{store: w.store}).Acquire(t.Context()); err != nil {
				t.Errorf("lease was not given up: %v", err)
			}
			w.store.holder = ""
			w.restart()
			w.pass(Request{Kind: Reconcile})
			w.pass(Request{Kind: Tail})
			w.allOnce()
		})
	})
}

// A destination that hangs does not keep a pass from ending: after the grace it is let go.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.Grace = 7 * time.Second })
		w.kong.add(w.now())
		w.sink.delay = time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		timer := time.AfterFunc(time.Minute, cancel)
		defer timer.Stop()
		begin := time.Now()
		if _, err := w.p.Run(ctx, Request{Kind: Reconcile}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if took := time.Since(begin); took != 67*time.Second {
			t.Errorf("ended after %s", took)
		}
	})
}

func TestDryRunWritesNothing(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong(), func(o *Options) { o.SkipOwnReads = true })
			w.kong.ownReads = true
			w.kong.add(span(w.now()-500, 50, 10)...)
			s := w.pass(Request{Kind: Reconcile, DryRun: true})
			if s.New < 50 || s.Delivered != 0 || w.store.writes != 0 || w.sink.putCalls() != 0 || w.store.tokens != 0 {
				t.Errorf("%+v, %d writes, %d puts, %d leases", s, w.store.writes, w.sink.putCalls(), w.store.tokens)
			}
			// Not even where there is something to do besides.
			w.kong.ownReads = false
			w.pass(Request{Kind: Reconcile})
			w.kong.add(w.now())
			writes, puts := w.store.writes, w.sink.putCalls()
			for _, kind := range []Kind{Tail, Reconcile, Window} {
				if s := w.pass(Request{Kind: kind, DryRun: true}); s.New != 1 {
					t.Errorf("%+v", s)
				}
			}
			if w.store.writes != writes || w.sink.putCalls() != puts {
				t.Error("a dry run wrote something")
			}
		})
	})
}

func TestSkipOwnReads(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong(), func(o *Options) { o.SkipOwnReads, o.PageSize = true, 100 })
			w.kong.ownReads = true
			ids := w.kong.add(span(w.now()-500, 50, 10)...)
			foreign := w.kong.add(w.now())[0]
			own := 0
			for _, req := range []Request{{Kind: Reconcile}, {Kind: Window}, {Kind: Tail}, {Kind: Reconcile, Full: true}} {
				own += w.pass(req).Own
				w.advance(time.Second)
			}
			// All of them are counted once, also those whose rows came after their pass.
			w.kong.ownReads = false
			reads := len(w.kong.all()) - len(ids) - 1
			if own += w.pass(Request{Kind: Reconcile, Full: true}).Own; own != reads {
				t.Errorf("%d own reads were counted, want %d", own, reads)
			}
			if again := w.pass(Request{Kind: Reconcile, Full: true}).Own; again != 0 {
				t.Errorf("%d own reads were counted again", again)
			}
			w.kong.ownReads = true
			w.restart() // a later process knows them from the ledger
			for range 2 {
				w.pass(Request{Kind: Reconcile, Full: true})
			}
			if got := w.sink.ids(); len(got) != len(ids)+1 || w.sink.got(foreign) != 1 {
				t.Errorf("%d were delivered, want %d: %v", len(got), len(ids)+1, got)
			}
		})
	})
}

func TestOwnReadsAreDeliveredByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.ownReads = true
		w.pass(Request{Kind: Reconcile})
		w.kong.ownReads = false
		if s := w.pass(Request{Kind: Reconcile}); s.Own != 0 {
			t.Errorf("%+v", s)
		}
		w.allOnce()
	})
}

func TestOwnReadsAreBounded(t *testing.T) {
	var o ownReads
	for i := range 3 * maxOwn {
		o.add([]string{fmt.Sprint("id", i)})
		if i == maxOwn/2 {
			o.noted = len(o.queue)
		}
	}
	if len(o.queue) != maxOwn || len(o.ids) != maxOwn || o.noted != 0 || !o.has(fmt.Sprint("id", 3*maxOwn-1)) || o.has("id0") {
		t.Errorf("%d queued, %d known, %d noted", len(o.queue), len(o.ids), o.noted)
	}
}

// A row that is shown twice on a page is one entry.
func TestRowTwiceOnAPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, unordered())
		w.kong.add(w.now(), w.now())
		w.kong.reorder = func(_ int, _ audit.Query, rows []audit.Entry) {
			if len(rows) == 2 {
				rows[1] = rows[0]
			}
		}
		if s := w.pass(Request{Kind: Reconcile}); s.New != 1 || s.Delivered != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestPrepareAndObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen, delivered, stages, progress := 0, 0, map[string]int{}, 0
		w := newWorld(t, oldest(), func(o *Options) {
			o.Prepare = func(e *audit.Entry) { e.Payload = "redacted" }
			o.Observer = Observer{
				Seen:      func(list []audit.Entry) { seen += len(list) },
				Delivered: func(list []audit.Entry) { mu.Lock(); delivered += len(list); mu.Unlock() },
				Stage:     func(s string, _ time.Duration) { mu.Lock(); stages[s]++; mu.Unlock() },
				Progress:  func(Summary) { progress++ },
			}
		})
		for range 35 {
			w.kong.addEntry(audit.Entry{RequestID: fmt.Sprint("x", w.kong.next), Timestamp: w.now(), Payload: `{"password":"hush"}`})
		}
		w.pass(Request{Kind: Reconcile})
		for _, e := range w.sink.events {
			if e.Payload != "redacted" {
				t.Fatal("an entry left as it was")
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if seen < 35 || delivered != 35 || progress < 4 || stages["read"] == 0 || stages["lookup"] == 0 || stages["put"] == 0 || stages["record"] == 0 {
			t.Errorf("seen %d, delivered %d, progress %d, stages %v", seen, delivered, progress, stages)
		}
	})
}

// What the ledger keeps an id for is what Kong still keeps the row for.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.RecordTTL = 10 * time.Hour })
		ids := w.kong.add(w.now(), w.now()-4*3600, w.now()-20*3600, w.now()+3600)
		w.kong.rows[0].TTL = 77
		w.pass(Request{Kind: Reconcile})
		for i, want := range []time.Duration{77 * time.Second, 6 * time.Hour, 0, 10 * time.Hour} {
			if got := w.store.keeps[ids[i]]; got != want {
				t.Errorf("row %d is kept for %s, want %s", i, got, want)
			}
		}
	})
}

func TestScan(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong())
			now := w.now()
			w.kong.add(span(now-100, 100, 1)...)
			got := map[string]int{}
			err := w.p.Scan(t.Context(), now-60, now-20, func(s Scanned) error {
				if s.Restart {
					clear(got)
				}
				for _, e := range s.Entries {
					got[e.ID]++
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range w.kong.all() {
				want := 0
				if e.Timestamp >= now-60 && e.Timestamp < now-20 {
					want = 1
				}
				if got[e.ID] != want {
					t.Errorf("row at %d was shown %d times", e.Timestamp-now, got[e.ID])
				}
			}
			stop := errors.New("enough")
			if err := w.p.Scan(t.Context(), 0, 0, func(Scanned) error { return stop }); !errors.Is(err, stop) {
				t.Errorf("%v", err)
			}
			if w.store.writes != 0 || w.sink.putCalls() != 0 {
				t.Error("a scan wrote something")
			}
		})
	})
}

// Told to stop between the last page and the last batch, a pass is not complete.
func TestCancelBeforeTheLastBatch(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := newWorld(t, newKong(), func(o *Options) {
				o.Observer.Progress = func(s Summary) {
					if s.Read >= 25 {
						cancel()
					}
				}
			})
			w.kong.add(span(w.now()-100, 25, 1)...)
			s, err := w.p.Run(ctx, Request{Kind: Reconcile})
			if !errors.Is(err, context.Canceled) || s.Complete || w.store.saved().FullAt != 0 {
				t.Errorf("%v, %+v, marks %+v", err, s, w.store.saved())
			}
			w.pass(Request{Kind: Reconcile})
			w.allOnce()
		})
	})
}

// What was read before the log became unreadable is delivered all the same.
func TestReadBeforeFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.add(span(w.now()-100, 25, 1)...)
		w.cutAt(4)
		if s, err := w.run(Request{Kind: Reconcile}); err == nil || s.Delivered < 18 || s.Failed != 0 {
			t.Errorf("%v, %+v", err, s)
		}
	})
}
