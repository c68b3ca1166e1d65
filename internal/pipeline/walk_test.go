package pipeline

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Whatever the way of paging and the size of a page, everything arrives once, a
// second pass finds nothing new, and marks stand where they should.
func TestEveryWayReadsEverything(t *testing.T) {
	for _, size := range []int{1, 2, 3, 10, 1000} {
		for name, times := range map[string]func(now int64) []int64{
			"spread":      func(now int64) []int64 { return span(now-900, 61, 14) },
			"one second":  func(now int64) []int64 { return span(now-900, 61, 0) },
			"two seconds": func(now int64) []int64 { return append(span(now-900, 30, 0), span(now-899, 31, 0)...) },
			"a crowd between": func(now int64) []int64 {
				return slices.Concat(span(now-900, 9, 1), span(now-890, 40, 0), span(now-880, 12, 1))
			},
			"empty": func(int64) []int64 { return nil },
		} {
			t.Run(fmt.Sprintf("size %d, %s", size, name), func(t *testing.T) {
				ways(t, func(t *testing.T, newKong func() *kong) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, newKong(), func(o *Options) { o.PageSize = size })
						ids := w.kong.add(times(w.now())...)
						s := w.pass(Request{Kind: audit.Reconcile})
						if s.New != len(ids) || s.Delivered != len(ids) {
							t.Errorf("%+v, want %d new and delivered", s, len(ids))
						}
						w.allOnce()
						m := w.store.saved()
						full := w.now()
						if len(ids) == 0 {
							full = 0 // the next one reads everything, too
						}
						if m.FullAt != full || m.ReconciledThrough != w.now() || m.Resume != nil || m.Cursor > w.now() || m.Cursor == 0 {
							t.Errorf("marks %+v at %d", m, w.now())
						}
						w.advance(time.Minute)
						late := w.kong.add(w.now(), w.now())
						if s := w.pass(Request{Kind: audit.Tail}); s.New != len(late) {
							t.Errorf("tail: %+v, want %d new", s, len(late))
						}
						w.allOnce()
						if m := w.store.saved(); m.Cursor != w.now() {
							t.Errorf("cursor is %d after a tail, want %d", m.Cursor, w.now())
						}
						if w.logs.count("did not keep the order") != 0 && w.kong.sorts {
							t.Error("order was given up where it held")
						}
					})
				})
			})
		}
	}
}

func TestThreeThousandRowsOfOneSecond(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong(), func(o *Options) { o.PageSize = 1000 })
			w.kong.add(span(w.now()-10, 3000, 0)...)
			if s := w.pass(Request{Kind: audit.Reconcile}); s.Delivered != 3000 || s.Read < 3000 {
				t.Errorf("%+v", s)
			}
			w.allOnce()
		})
	})
}

// Rows that come and go while the log is read skip nothing that was there.
func TestLogChangesDuringWalk(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		for _, size := range []int{2, 7} {
			t.Run(fmt.Sprint(size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, newKong(), func(o *Options) { o.PageSize = size })
					now := w.now()
					ids := w.kong.add(slices.Concat(span(now-5000, 40, 20), span(now-3000, 25, 0), span(now-2000, 40, 20))...)
					w.kong.hook = func(n int, _ audit.Query) error {
						if n < 30 {
							w.kong.add(w.now(), w.now()-7, w.now()-4000) // new, late, very late
						}
						return nil
					}
					w.pass(Request{Kind: audit.Reconcile})
					if !w.kong.positional || w.kong.sorts {
						// Where offsets count rows of no order, only the next pass is sure to find all.
						for _, id := range ids {
							if w.destination.got(id) != 1 {
								t.Errorf("%s was delivered %d times", id, w.destination.got(id))
							}
						}
					}
					w.kong.hook = nil
					w.pass(Request{Kind: audit.Reconcile})
					w.allOnce()
				})
			})
		}
	})
}

func TestPurgeDuringWalk(t *testing.T) {
	for _, newKong := range []func() *kong{oldest, newest, unordered, func() *kong { return &kong{sorts: true, filters: true, positional: true} }} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong())
			w.kong.add(span(w.now()-1000, 200, 4)...)
			w.kong.hook = func(int, audit.Query) error {
				w.kong.purge(3)
				return nil
			}
			w.pass(Request{Kind: audit.Reconcile})
			w.allOnce() // of what is left
			if len(w.kong.all()) == 0 {
				t.Error("everything was purged, nothing was shown")
			}
		})
	}
}

// Each read is a row itself, at the front of a log that is newest first. Where
// offsets count rows, every page shows the end of the one before again.
func TestOwnReadsShiftOffsets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &kong{sorts: true, positional: true, ownReads: true})
		w.kong.add(span(w.now()-3600, 300, 7)...)
		w.kong.hook = func(int, audit.Query) error {
			w.kong.add(w.now(), w.now())
			w.advance(time.Second)
			return nil
		}
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Order != "newest-first" {
			t.Errorf("order is %s", s.Order)
		}
		w.kong.hook, w.kong.ownReads = nil, false
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Order != "newest-first" {
			t.Errorf("order is %s", s.Order)
		}
		w.allOnce()
	})
}

func TestPagesThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		hook   func(n int, q audit.Query) error
		change func(*kong)
		fails  bool
	}{
		"too large":         {change: func(k *kong) { k.maxBytes = 1000 }},
		"only one row fits": {change: func(k *kong) { k.maxBytes = 300 }},
		"large pages fail": {hook: func(_ int, q audit.Query) error {
			if q.Size > 5 {
				return errPage
			}
			return nil
		}},
		"some fail": {hook: func(n int, _ audit.Query) error {
			if n%3 == 0 {
				return errPage
			}
			return nil
		}},
		"all fail": {fails: true, hook: func(n int, _ audit.Query) error {
			if n > 3 {
				return errPage
			}
			return nil
		}},
		"settings": {fails: true, hook: func(n int, _ audit.Query) error {
			if n == 4 {
				return audit.SettingsErrorf("give it a role", "403")
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			ways(t, func(t *testing.T, newKong func() *kong) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, newKong(), func(o *Options) { o.PageSize = 16 })
					if c.change != nil {
						c.change(w.kong)
					}
					w.kong.add(span(w.now()-300, 100, 3)...)
					w.kong.hook = c.hook
					s, err := w.run(Request{Kind: audit.Reconcile})
					if (err != nil) != c.fails {
						t.Fatalf("error is %v", err)
					}
					if !c.fails {
						w.allOnce()
						return
					}
					if s.Complete || s.Left == "" || w.store.saved().FullAt != 0 {
						t.Errorf("%+v, marks %+v", s, w.store.saved())
					}
					if n := s.New - s.Delivered; n != s.Failed {
						t.Errorf("failed %d, want %d", s.Failed, n)
					}
					w.kong.hook = nil
					w.pass(Request{Kind: audit.Reconcile})
					w.allOnce()
				})
			})
		})
	}
}

// The same offset twice is an error, not a loop.
func TestRepeatedOffset(t *testing.T) {
	for _, k := range []*kong{newest(), unordered(), oldest()} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, k)
			var first string
			k.offset = func(n int, token string) string {
				if first == "" && n > 3 {
					first = token
				}
				if n > 5 {
					return first
				}
				return token
			}
			w.kong.add(span(w.now()-300, 100, 0)...)
			if _, err := w.run(Request{Kind: audit.Reconcile}); err == nil || !strings.Contains(err.Error(), "same offset twice") {
				t.Errorf("error is %v", err)
			}
			if n := len(k.queries()); n > 100 {
				t.Errorf("%d pages were asked for", n)
			}
		})
	}
}

func TestOffsetNotAccepted(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong())
			w.kong.add(append(span(w.now()-300, 60, 0), span(w.now()-200, 60, 1)...)...)
			refused := 0
			w.kong.hook = func(n int, q audit.Query) error {
				if q.Offset != "" && n > 4 && refused == 0 {
					refused++
					return audit.ErrBadOffset
				}
				return nil
			}
			w.pass(Request{Kind: audit.Reconcile})
			w.allOnce()
			if refused != 1 {
				t.Error("no offset was refused")
			}

			// For ever: an error, not a loop.
			w.kong.hook = func(_ int, q audit.Query) error {
				if q.Offset != "" {
					return audit.ErrBadOffset
				}
				return nil
			}
			before := len(w.kong.queries())
			if _, err := w.run(Request{Kind: audit.Reconcile, Full: true}); !errors.Is(err, audit.ErrBadOffset) {
				t.Errorf("error is %v", err)
			}
			if n := len(w.kong.queries()) - before; n > 20 {
				t.Errorf("%d pages were asked for", n)
			}
		})
	})
}

// Rows without a request id that are equal in all that Kong shows are told apart,
// and keep their ids when a second is read again.
func TestEqualRowsWithoutID(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		for _, size := range []int{1, 2, 5, 100} {
			t.Run(fmt.Sprint(size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					if k := newKong(); k.positional && k.sorts && !k.filters {
						return
					}
					w := newWorld(t, newKong(), func(o *Options) { o.PageSize = size })
					row := func(at int64) { w.kong.addEntry(audit.Entry{Timestamp: at, Method: "GET", Path: "/"}) }
					now := w.now()
					for i := range int64(8) {
						w.kong.add(now - 20 + i)
						for range i {
							row(now - 20 + i)
						}
					}
					want := len(w.kong.all())
					check := func(want int) {
						t.Helper()
						total := 0
						for _, id := range w.destination.ids() {
							if w.destination.got(id) != 1 {
								t.Errorf("%s was delivered %d times", id, w.destination.got(id))
							}
							total++
						}
						if total != want {
							t.Errorf("%d entries were delivered, want %d", total, want)
						}
					}
					for range 2 {
						w.pass(Request{Kind: audit.Reconcile})
						check(want)
					}
					row(now - 1) // of a second that was read
					row(now - 14)
					w.restart()
					w.pass(Request{Kind: audit.Reconcile})
					check(want + 2)
					w.pass(Request{Kind: audit.Tail})
					w.pass(Request{Kind: audit.Reconcile, Full: true})
					check(want + 2)
				})
			})
		}
	})
}

func TestWindowAndStartAt(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		for _, size := range []int{1, 3, 100} {
			synctest.Test(t, func(t *testing.T) {
				now := time.Now().Unix()
				for _, c := range []struct{ since, until, startAt, from, to int64 }{
					{since: now - 60, from: now - 60, to: now},
					{until: now - 60, from: 0, to: now - 60},
					{since: now - 80, until: now - 60, from: now - 80, to: now - 60},
					{since: now - 80, startAt: now - 50, from: now - 50, to: now},
					{since: now + 10, until: now + 20},
				} {
					w := newWorld(t, newKong(), func(o *Options) { o.PageSize, o.StartAt = size, c.startAt })
					w.kong.add(span(now-100, 100, 1)...)
					s := w.pass(Request{Kind: audit.Window, Since: c.since, Until: c.until})
					want := 0
					for _, e := range w.kong.all() {
						in := e.Timestamp >= c.from && e.Timestamp < c.to
						if in {
							want++
						}
						if (w.destination.got(e.ID) == 1) != in {
							t.Errorf("%+v: row at %d delivered %d times", c, e.Timestamp-now, w.destination.got(e.ID))
						}
					}
					if s.New != want || s.Delivered != want {
						t.Errorf("%+v: %+v, want %d new", c, s, want)
					}
					if m := w.store.saved(); !reflect.DeepEqual(m, audit.Marks{}) {
						t.Errorf("%+v: marks moved to %+v", c, m)
					}
				}
			})
		}
	})
}

func TestStartAtHoldsForEveryPass(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now().Unix() - 50
			w := newWorld(t, newKong(), func(o *Options) { o.StartAt = start })
			w.kong.add(span(start-50, 100, 1)...)
			w.pass(Request{Kind: audit.Reconcile})
			w.pass(Request{Kind: audit.Tail})
			for _, e := range w.kong.all() {
				if want := min(1, max(0, e.Timestamp-start+1)); int64(w.destination.got(e.ID)) != want {
					t.Errorf("row at start%+d was delivered %d times", e.Timestamp-start, w.destination.got(e.ID))
				}
			}
		})
	})
}
