package pipeline

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// cutAt cancels a pass before its nth page.
func (w *world) cutAt(n int) {
	w.kong.hook = func(int, audit.Query) error {
		if n--; n <= 0 {
			return audit.SettingsErrorf("", "cut")
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
			if _, err := w.run(Request{Kind: audit.Reconcile}); err == nil {
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
			if _, err := w.run(Request{Kind: audit.Reconcile}); err == nil {
				t.Fatal("not cut")
			}
			w.restart()
			w.kong.hook = nil
			w.kong.add(w.now())
			s := w.pass(Request{Kind: audit.Reconcile})
			if !s.Full || s.Pages > 12 {
				t.Errorf("did not go on where it was cut: %+v", s)
			}
			if w.logs.count("going on where") != 2 {
				t.Error("went on from elsewhere")
			}
			if m := w.store.saved(); m.Resume != nil || m.FullAt != began || m.ReconciledThrough != began {
				t.Errorf("marks %+v, want those of %d", m, began)
			}
			w.pass(Request{Kind: audit.Tail})
			w.allOnce()
		})
	})
}

// Whatever a Kong that has changed answers to the offset of a cut reconcile, the next
// one starts over instead of failing at the same offset each time.
func TestCutReconcileWithStaleOffset(t *testing.T) {
	for name, stale := range map[string]error{
		"bad offset": fmt.Errorf("%w: 400", audit.ErrBadOffset),
		"500":        errors.New("500 Internal Server Error"),
		"too long":   audit.SettingsErrorf("hint", "414 URI Too Long"),
		"no answer":  fmt.Errorf("no answer: %w", context.DeadlineExceeded),
	} {
		for _, newKong := range []func() *kong{newest, unordered} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, newKong())
					w.kong.add(span(w.now()-4000, 100, 10)...)
					w.cutAt(8)
					if _, err := w.run(Request{Kind: audit.Reconcile}); err == nil {
						t.Fatal("not cut")
					}
					w.restart()
					token, refused := "", 0
					w.kong.hook = func(_ int, q audit.Query) error {
						if token == "" {
							token = q.Offset
						}
						if token != "" && q.Offset == token && w.logs.count("starting over") == 0 {
							refused++
							return stale
						}
						return nil
					}
					w.pass(Request{Kind: audit.Reconcile})
					w.allOnce()
					if refused == 0 {
						t.Error("the offset was not tried")
					}
				})
			})
		}
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
					if _, err := w.run(Request{Kind: audit.Reconcile}); err == nil {
						t.Fatal("not cut")
					}
					w.kong.hook = nil
					now := to()
					w.kong.sorts, w.kong.filters, w.kong.positional, w.kong.sorted = now.sorts, now.filters, now.positional, nil
					w.restart()
					w.pass(Request{Kind: audit.Reconcile})
					w.allOnce()
				})
			})
		}
	}
}
