package pipeline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func TestLeaseHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.add(w.now())
		other := &handle{store: w.store}
		if _, err := other.Acquire(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		for words, request := range []bool{false, true} {
			if _, err := w.run(Request{Kind: audit.Reconcile, RequestRerun: request}); !errors.Is(err, audit.ErrLeaseHeld) {
				t.Errorf("%v", err)
			}
			if w.store.words != words {
				t.Errorf("%d reruns were requested, want %d", w.store.words, words)
			}
		}
		begin := time.Now()
		if _, err := w.run(Request{Kind: audit.Reconcile, Wait: 3 * time.Second}); !errors.Is(err, audit.ErrLeaseHeld) {
			t.Errorf("%v", err)
		}
		if took := time.Since(begin); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("waited %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.p.Run(ctx, Request{Kind: audit.Reconcile, Wait: time.Minute}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		// The holder is gone without a word: its lease runs out.
		w.pass(Request{Kind: audit.Reconcile, Wait: 15 * time.Second})
		w.allOnce()
	})
}

// A long pass keeps its lease.
func TestLeaseIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.add(span(w.now()-100, 50, 2)...)
		w.kong.delay = 20 * time.Second
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
	})
}

// When the lease is lost the pass stops, and what is in flight is still recorded.
func TestLeaseLost(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong(), func(o *Options) { o.BatchEntries = 5 })
			w.kong.add(span(w.now()-900, 200, 4)...)
			w.kong.delay, w.destination.delay = time.Second, 5*time.Second
			stolen := time.Now().Add(8*time.Second + time.Millisecond)
			timer := time.AfterFunc(time.Until(stolen), w.store.steal)
			defer timer.Stop()
			s, err := w.run(Request{Kind: audit.Reconcile})
			if !errors.Is(err, audit.ErrLeaseLost) || s.Complete {
				t.Fatalf("%v, %+v", err, s)
			}
			for _, at := range w.destination.times {
				if at.After(stolen.Add(3 * time.Second)) {
					t.Errorf("put %s after the lease was lost", at.Sub(stolen))
				}
			}
			if n := len(w.destination.ids()); n == 0 || w.store.count(audit.Delivered) != n {
				t.Errorf("%d recorded of %d", w.store.count(audit.Delivered), n)
			}
			if m := w.store.saved(); m.ReconciledThrough != 0 {
				t.Errorf("marks %+v", m)
			}
			w.pass(Request{Kind: audit.Reconcile, Wait: 15 * time.Second})
			w.pass(Request{Kind: audit.Tail})
			w.allOnce()
		})
	})
}

// Who cannot renew for as long as the lease lasts stops by itself, without being told.
func TestLeaseNotRenewed(t *testing.T) {
	for name, renew := range map[string]func(ctx context.Context) error{
		"fails": func(context.Context) error { return errors.New("connection refused") },
		"hangs": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, oldest())
				w.kong.add(span(w.now()-900, 200, 4)...)
				w.kong.delay = time.Second
				w.store.renew = renew
				begin := time.Now()
				if _, err := w.run(Request{Kind: audit.Reconcile}); !errors.Is(err, audit.ErrLeaseLost) {
					t.Errorf("%v", err)
				}
				if took := time.Since(begin); took > 14*time.Second {
					t.Errorf("stopped after %s", took)
				}
				for _, at := range w.destination.times {
					if at.After(begin.Add(10 * time.Second)) {
						t.Errorf("put %s after the last renewal", at.Sub(begin))
					}
				}
				w.store.renew = nil
				w.pass(Request{Kind: audit.Reconcile, Wait: 15 * time.Second})
				w.allOnce()
			})
		})
	}
}

// A renewal that fails now and then does not lose the lease.
func TestRenewalThatFailsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.add(span(w.now()-900, 200, 4)...)
		w.kong.delay = 3 * time.Second
		n := 0
		w.store.renew = func(context.Context) error {
			if n++; n%3 != 0 {
				return errors.New("connection reset")
			}
			return nil
		}
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
	})
}

// Who waits for the lease gets it once the holder has gone round for it, however
// long a round takes.
func TestWaiterIsNotKeptWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.add(span(w.now()-900, 100, 4)...)
		w.kong.delay = 2 * time.Second
		h := &handle{store: w.store}
		o := w.opts
		o.Ledger, o.Marks, o.Undelivered, o.OwnReads, o.Lease = h, h, h, h, h.keeper()
		holder := New(o)
		done := make(chan error, 1)
		go func() {
			_, err := holder.Run(t.Context(), Request{Kind: audit.Tail})
			done <- err
		}()
		w.advance(time.Second)
		begin := time.Now()
		w.pass(Request{Kind: audit.Tail, Wait: time.Minute})
		// The rest of the first pass, of eleven pages and a probe, a round, and its own page.
		if took := time.Since(begin); took > 50*time.Second {
			t.Errorf("the lease came after %s", took)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Two relays on one store: nothing is put twice, and neither waits without end.
func TestTwoRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newWorld(t, oldest())
		a.kong.add(span(a.now()-900, 100, 4)...)
		a.kong.delay, a.destination.delay = 100*time.Millisecond, 50*time.Millisecond
		h := &handle{store: a.store}
		o := a.opts
		o.Ledger, o.Marks, o.Undelivered, o.OwnReads, o.Lease = h, h, h, h, h.keeper()
		b := New(o)
		done := make(chan error, 2)
		for _, p := range []*Pipeline{a.p, b} {
			go func() {
				var err error
				for i := 0; i < 20 && err == nil; i++ {
					a.kong.add(a.now())
					if _, err = p.Run(t.Context(), Request{Kind: audit.Tail}); errors.Is(err, audit.ErrLeaseHeld) {
						err = sleep(t.Context(), 130*time.Millisecond)
					}
				}
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		a.pass(Request{Kind: audit.Tail, Wait: time.Minute})
		a.allOnce()
	})
}
