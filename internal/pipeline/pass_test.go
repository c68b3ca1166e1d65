package pipeline

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/walk"
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

// Marks say when a pass began, by Kong's clock: what Kong wrote meanwhile may have been missed.
func TestMarksAreOfTheBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.PageSize = 10 })
		w.kong.skew, w.kong.delay = -time.Hour, time.Second
		began := w.now()
		w.kong.add(span(began-5000, 100, 30)...)
		w.pass(Request{Kind: audit.Reconcile})
		if m := w.store.saved(); m.Completed < began || m.Completed > began+1 || m.ReconciledThrough != m.Completed || m.FullAt != m.Completed {
			t.Errorf("a pass that began at %d and ended at %d left %+v", began, w.now(), m)
		}
	})
}

// Entries that a log hid when it was first read come with the next reconcile, however old they are.
func TestLogThatLookedEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.PageSize = 10 })
		w.pass(Request{Kind: audit.Reconcile})
		if m := w.store.saved(); m.ReconciledThrough == 0 || m.FullAt != 0 {
			t.Errorf("an empty log left %+v", m)
		}
		w.advance(time.Hour)
		w.kong.add(span(w.now()-10*24*3600, 100, 30)...)
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Delivered != 100 {
			t.Errorf("%+v", s)
		}
		if m := w.store.saved(); m.FullAt != w.now() {
			t.Errorf("%+v", m)
		}
	})
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
		expect("first pass is full", floor(Request{Kind: audit.Tail}), 0)
		start := w.now()
		cursor := w.store.saved().Cursor
		expect("first tail is wide", floor(Request{Kind: audit.Tail}), cursor-300)
		expect("tail", floor(Request{Kind: audit.Tail}), cursor-5)
		w.advance(wideEvery - time.Second)
		expect("tail soon after", floor(Request{Kind: audit.Tail}), cursor-5)
		w.advance(time.Second)
		expect("tail after a while", floor(Request{Kind: audit.Tail}), cursor-300)
		expect("and then", floor(Request{Kind: audit.Tail}), cursor-5)

		w.kong.add(w.now())
		expect("tail before a new row", floor(Request{Kind: audit.Tail}), cursor-5)
		expect("reconcile", floor(Request{Kind: audit.Reconcile}), start-25*3600)
		if m := w.store.saved(); m.FullAt != start || m.ReconciledThrough != w.now() {
			t.Errorf("marks %+v", m)
		}
		through := w.store.saved()
		w.advance(23 * time.Hour)
		w.kong.add(w.now())
		w.pass(Request{Kind: audit.Tail})
		expect("reconcile from the older mark", floor(Request{Kind: audit.Reconcile}), min(through.Cursor, through.ReconciledThrough)-25*3600)
		w.advance(time.Hour)
		expect("full once a day", floor(Request{Kind: audit.Reconcile}), 0)
		expect("and not again", floor(Request{Kind: audit.Reconcile}), min(w.store.saved().Cursor, w.now())-25*3600)
		expect("full on request", floor(Request{Kind: audit.Reconcile, Full: true}), 0)

		// After days of outage a reconcile goes on from where the last one was.
		m := w.store.saved()
		w.advance(23*time.Hour + 50*time.Minute)
		expect("reconcile after a pause", floor(Request{Kind: audit.Reconcile}), min(m.Cursor, m.ReconciledThrough)-25*3600)

		w.store.empty()
		expect("full after a lost ledger", floor(Request{Kind: audit.Tail}), 0)
		w.allDelivered()
	})
}

// allDelivered checks that the destination has every row, however often.
func (w *world) allDelivered() {
	w.t.Helper()
	for _, e := range w.kong.all() {
		if w.destination.got(e.ID) == 0 {
			w.t.Errorf("row %s of %d was not delivered", e.ID, e.Timestamp)
		}
	}
}

func TestDaysOfOutage(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong(), func(o *Options) { o.PageSize = 100 })
			w.kong.add(span(w.now()-3600, 100, 36)...)
			w.pass(Request{Kind: audit.Reconcile})
			w.kong.add(span(w.now(), 500, 500)...)
			w.advance(3 * 24 * time.Hour)
			w.restart()
			if s := w.pass(Request{Kind: audit.Reconcile}); s.New != 500 {
				t.Errorf("%+v", s)
			}
			w.allOnce()
		})
	})
}

// With much retained and little new, a pass costs what is new. Its last page is full here, so one
// more confirms that it is the last.
func TestTailCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.PageSize = 1000 })
		w.kong.add(span(w.now()-200_000, 20_000, 10)...)
		w.pass(Request{Kind: audit.Reconcile})
		w.restart()
		w.kong.add(span(w.now(), 1000, 0)...)
		w.advance(time.Second)
		if s := w.pass(Request{Kind: audit.Tail}); s.Pages > 4 || s.Delivered != 1000 {
			t.Errorf("%+v", s)
		}
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Pages > 90_000/10/1000+4 {
			t.Errorf("%+v", s)
		}
	})
}

func TestDryRunWritesNothing(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong(), func(o *Options) { o.SkipOwnReads = true })
			w.kong.ownReads = true
			w.kong.add(span(w.now()-500, 50, 10)...)
			s := w.pass(Request{Kind: audit.Reconcile, DryRun: true})
			if s.New < 50 || s.Delivered != 0 || w.store.writes != 0 || w.destination.putCalls() != 0 || w.store.tokens != 0 {
				t.Errorf("%+v, %d writes, %d puts, %d leases", s, w.store.writes, w.destination.putCalls(), w.store.tokens)
			}
			// Not even where there is something to do besides.
			w.kong.ownReads = false
			w.pass(Request{Kind: audit.Reconcile})
			w.kong.add(w.now())
			writes, puts := w.store.writes, w.destination.putCalls()
			for _, kind := range []audit.PassKind{audit.Tail, audit.Reconcile, audit.Window} {
				if s := w.pass(Request{Kind: kind, DryRun: true}); s.New != 1 {
					t.Errorf("%+v", s)
				}
			}
			if w.store.writes != writes || w.destination.putCalls() != puts {
				t.Error("a dry run wrote something")
			}
		})
	})
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
		if s := w.pass(Request{Kind: audit.Reconcile}); s.New != 1 || s.Delivered != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestPrepareAndObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen, delivered, stages, progress, seconds := 0, 0, map[string]int{}, 0, 0.0
		w := newWorld(t, oldest(), func(o *Options) {
			o.Prepare = func(e *audit.Entry) { e.Payload = "redacted" }
			o.Observer = Observer{
				Seen:      func(list []audit.Entry) { seen += len(list) },
				Delivered: func(list []audit.Entry) { mu.Lock(); delivered += len(list); mu.Unlock() },
				Stage:     func(s string, _ time.Duration) { mu.Lock(); stages[s]++; mu.Unlock() },
				Progress:  func(s Summary) { progress, seconds = progress+1, s.Seconds },
			}
		})
		w.kong.delay = time.Second
		for range 35 {
			w.kong.addEntry(audit.Entry{RequestID: fmt.Sprint("x", w.kong.next), Timestamp: w.now(), Payload: `{"password":"hush"}`})
		}
		w.pass(Request{Kind: audit.Reconcile})
		for _, e := range w.destination.events {
			if e.Payload != "redacted" {
				t.Fatal("an entry left as it was")
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if seen < 35 || delivered != 35 || progress < 4 || stages["read"] == 0 || stages["lookup"] == 0 || stages["put"] == 0 || stages["record"] == 0 || seconds < 4 {
			t.Errorf("seen %d, delivered %d, progress %d, %f s, stages %v", seen, delivered, progress, seconds, stages)
		}
	})
}

// What the ledger keeps an id for is what Kong still keeps the row for.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.RecordTTL = 10 * time.Hour })
		ids := w.kong.add(w.now(), w.now()-4*3600, w.now()-20*3600, w.now()+3600)
		w.kong.rows[0].TTL = 77
		w.pass(Request{Kind: audit.Reconcile})
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
			err := w.p.Reader().Scan(t.Context(), now-60, now-20, func(s walk.Step) error {
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
			if err := w.p.Reader().Scan(t.Context(), 0, 0, func(walk.Step) error { return stop }); !errors.Is(err, stop) {
				t.Errorf("%v", err)
			}
			if w.store.writes != 0 || w.destination.putCalls() != 0 {
				t.Error("a scan wrote something")
			}
		})
	})
}
