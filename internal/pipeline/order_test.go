package pipeline

import (
	"cmp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// An order that breaks half-way drops the pass to the next way, with one warning;
// what is in flight is not put again.
func TestOrderBreaks(t *testing.T) {
	swap := func(rows []audit.Entry) {
		if len(rows) > 2 {
			rows[0], rows[len(rows)-1] = rows[len(rows)-1], rows[0]
		}
	}
	for _, c := range []struct {
		name    string
		kong    *kong
		reorder func(n int, q audit.Query, rows []audit.Entry)
		order   string
	}{
		{"oldest first to newest first", oldest(), func(n int, q audit.Query, rows []audit.Entry) {
			if n > 5 && q.Ascending {
				swap(rows)
			}
		}, "newest-first"},
		{"newest first to unordered", newest(), func(n int, _ audit.Query, rows []audit.Entry) {
			if n > 5 {
				swap(rows)
			}
		}, "unordered"},
		{"oldest first to unordered", oldest(), func(n int, _ audit.Query, rows []audit.Entry) {
			if n > 5 {
				swap(rows)
			}
		}, "unordered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.kong, func(o *Options) { o.BatchEntries = 3 })
				w.destination.delay = 3 * time.Second // so that much is in flight
				w.kong.delay = 700 * time.Millisecond
				w.kong.reorder = c.reorder
				w.kong.add(span(w.now()-3600, 120, 25)...)
				for range 2 {
					if s := w.pass(Request{Kind: audit.Reconcile, Full: true}); s.Order != c.order {
						t.Errorf("order is %s, want %s", s.Order, c.order)
					}
				}
				w.allOnce()
				for _, way := range []string{"oldest-first", "newest-first"} {
					if n := w.logs.count("reading another way\" order=" + way); n > 1 {
						t.Errorf("%d warnings for %s", n, way)
					}
				}
				if w.logs.count("reading another way") == 0 {
					t.Error("no warning")
				}
			})
		})
	}
}

// The cursor that an order earned is taken back with the order: a pass that is cut
// right after must not hide what was not read.
func TestOrderBreaksAfterMarksMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		start := w.now() - 3600
		w.kong.add(span(start, 10, 10)...)
		w.pass(Request{Kind: audit.Reconcile})
		before := w.store.saved().Cursor
		w.kong.add(span(start+100, 100, 20)...)
		w.kong.delay = time.Second
		w.kong.reorder = func(n int, q audit.Query, rows []audit.Entry) {
			if q.Ascending && n > 8 {
				slices.Reverse(rows)
			}
		}
		w.kong.hook = func(n int, q audit.Query) error {
			if n > 8 && !q.Ascending && q.After != farFuture {
				return audit.SettingsErrorf("", "cut")
			}
			return nil
		}
		if _, err := w.run(Request{Kind: audit.Tail}); err == nil {
			t.Fatal("the pass was not cut")
		}
		if m := slices.MaxFunc(w.store.moved, func(a, b audit.Marks) int { return int(a.Cursor - b.Cursor) }); m.Cursor <= before {
			t.Fatal("marks did not move while the order held")
		}
		if m := w.store.saved(); m.Cursor > before {
			t.Errorf("cursor is %d, was %d when the order last held", m.Cursor, before)
		}
	})
}

// A page of one second looks ordered every way: it moves no mark, or a pass that is
// cut after it hides the older rows of the pages that follow.
func TestNoMarkMovesBeforeTheOrderIsProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &kong{filters: true}) // rows have no order
		const rows, page = 30, 10
		numbers := make([]int, rows)
		for i := range numbers {
			numbers[i] = i
		}
		slices.SortFunc(numbers, func(a, b int) int { return cmp.Compare(scramble(uint64(a+1)), scramble(uint64(b+1))) })
		times := span(w.now()-1000, rows, 1)
		for _, n := range numbers[:page] { // what the first page shows
			times[n] = w.now()
		}
		w.kong.add(times...)
		w.kong.hook = func(n int, _ audit.Query) error {
			if n > 2 { // the probe and the first page
				return audit.SettingsErrorf("", "cut")
			}
			return nil
		}
		if _, err := w.run(Request{Kind: audit.Reconcile}); err == nil || w.destination.putCalls() == 0 {
			t.Fatalf("after %d puts: %v", w.destination.putCalls(), err)
		}
		if m := w.store.saved(); m.Cursor != 0 || m.Resume != nil {
			t.Errorf("marks moved: %+v", m)
		}
	})
}

func TestFilterThatIsIgnored(t *testing.T) {
	// A Kong that answers the probe with nothing and then ignores `after`.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.add(span(w.now()-500, 50, 10)...)
		w.pass(Request{Kind: audit.Reconcile})
		w.kong.filters, w.kong.sorted = false, nil
		w.kong.add(w.now())
		if s := w.pass(Request{Kind: audit.Tail}); s.Order != "newest-first" {
			t.Errorf("order is %s", s.Order)
		}
		w.allOnce()
	})
}

func TestRowsAheadOfTheClock(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong())
			w.kong.add(append(span(w.now()-100, 30, 3), span(w.now()+86400, 25, 1)...)...)
			if s := w.pass(Request{Kind: audit.Reconcile}); s.Ahead < 25 || s.Delivered != 55 {
				t.Errorf("%+v", s)
			}
			for range 3 {
				w.advance(time.Second)
				w.kong.add(w.now())
				w.pass(Request{Kind: audit.Tail})
				w.allOnce()
				for _, m := range w.store.moved {
					if m.Cursor > w.now() || m.ReconciledThrough > w.now() || m.FullAt > w.now() {
						t.Errorf("marks %+v at %d", m, w.now())
					}
				}
			}
		})
	})
}

// A row that is written while the log is read is not ahead of Kong's clock.
func TestRowsWrittenDuringAWalkAreNotAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.PageSize = 10 })
		w.kong.delay = 3 * time.Second
		w.kong.add(span(w.now()-5000, 50, 30)...)
		w.kong.hook = func(n int, _ audit.Query) error {
			if n < 7 {
				w.kong.add(w.now())
			}
			return nil
		}
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Ahead != 0 || s.Delivered != 56 {
			t.Errorf("%+v", s)
		}
	})
}

// Marks that a Kong with a wrong clock made do not hide what is written later.
func TestClockThatWasWrong(t *testing.T) {
	for _, kind := range []audit.PassKind{audit.Tail, audit.Reconcile} {
		ways(t, func(t *testing.T, newKong func() *kong) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newKong())
				w.kong.add(span(w.now()-100, 5, 10)...)
				w.pass(Request{Kind: audit.Reconcile})
				w.advance(10 * time.Minute)
				w.kong.skew = 400 * 24 * time.Hour
				w.kong.add(w.now())
				w.pass(Request{Kind: kind})
				w.kong.skew = 0
				w.advance(10 * time.Minute)
				w.kong.add(w.now()-30, w.now())
				w.pass(Request{Kind: audit.Tail}) // finds out
				w.pass(Request{Kind: audit.Tail}) // and this one reads what lies between
				w.allOnce()
				w.pass(Request{Kind: audit.Reconcile})
				if m := w.store.saved(); m.Cursor > w.now() || m.ReconciledThrough > w.now() || m.FullAt > w.now() {
					t.Errorf("marks %+v at %d", m, w.now())
				}
			})
		})
	}
}

func TestNoDateHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.noDate = true
		w.kong.add(w.now())
		w.pass(Request{Kind: audit.Reconcile})
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
		if w.logs.count("no Date header") != 1 {
			t.Error("want one warning")
		}
	})
}

// Rows whose time is not known are delivered, and do not cost the walk its order.
func TestRowsWithAGuessedTime(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong())
			w.kong.add(span(w.now()-3000, 60, 50)...)
			w.kong.reorder = func(_ int, _ audit.Query, rows []audit.Entry) {
				for i := range rows {
					if rows[i].RequestID == "r7" || rows[i].RequestID == "r42" {
						rows[i].Timestamp, rows[i].TimestampGuessed = w.now(), true
					}
				}
			}
			s := w.pass(Request{Kind: audit.Reconcile})
			if want := map[bool]string{true: "oldest-first", false: s.Order}[w.kong.filters]; s.Order != want || s.Delivered != 60 {
				t.Errorf("%+v", s)
			}
			if w.logs.count("reading another way") != 0 && w.kong.sorts {
				t.Error("the order was given up")
			}
			w.allOnce()
		})
	})
}
