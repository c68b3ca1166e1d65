package pipeline

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Near a deadline no batch is started, Left says what was not done, and the next
// reconcile goes on there.
func TestOutOfTime(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong(), func(o *Options) { o.BatchEntries, o.Workers = 10, 2 })
			w.kong.add(span(w.now()-5000, 300, 10)...)
			w.kong.delay = 2 * time.Second
			w.destination.delay = 3 * time.Second
			rounds := 0
			for ; rounds < 20; rounds++ {
				if rounds > 0 {
					w.restart()
				}
				ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
				s, err := w.p.Run(ctx, Request{Kind: audit.Reconcile})
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
			w.pass(Request{Kind: audit.Tail})
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
			w.destination.delay = 4 * time.Second
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, nil)
			defer cancel()
			stopped := time.Time{}
			timer := time.AfterFunc(10500*time.Millisecond, func() { stopped = time.Now(); cancel() })
			defer timer.Stop()
			s, err := w.p.Run(ctx, Request{Kind: audit.Reconcile})
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("%v", err)
			}
			if took := time.Since(stopped); took > 5*time.Second {
				t.Errorf("stopped after %s", took)
			}
			for _, at := range w.destination.times {
				if at.After(stopped) {
					t.Error("a put was started after the end")
				}
			}
			if n := w.store.count(audit.Delivered); n != len(w.destination.ids()) || n == 0 || s.Delivered != n {
				t.Errorf("%d recorded of %d accepted, %+v", n, len(w.destination.ids()), s)
			}
			if _, err := (&handle{store: w.store}).Acquire(t.Context(), true); err != nil {
				t.Errorf("lease was not given up: %v", err)
			}
			w.store.holder = ""
			w.restart()
			w.pass(Request{Kind: audit.Reconcile})
			w.pass(Request{Kind: audit.Tail})
			w.allOnce()
		})
	})
}

// A destination that hangs does not keep a pass from ending: after the grace it is let go.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.Grace = 7 * time.Second })
		w.kong.add(w.now())
		w.destination.delay = time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		timer := time.AfterFunc(time.Minute, cancel)
		defer timer.Stop()
		begin := time.Now()
		if _, err := w.p.Run(ctx, Request{Kind: audit.Reconcile}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if took := time.Since(begin); took != 67*time.Second {
			t.Errorf("ended after %s", took)
		}
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
			s, err := w.p.Run(ctx, Request{Kind: audit.Reconcile})
			if !errors.Is(err, context.Canceled) || s.Complete || w.store.saved().FullAt != 0 {
				t.Errorf("%v, %+v, marks %+v", err, s, w.store.saved())
			}
			w.pass(Request{Kind: audit.Reconcile})
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
		if s, err := w.run(Request{Kind: audit.Reconcile}); err == nil || s.Delivered < 18 || s.Failed != 0 {
			t.Errorf("%v, %+v", err, s)
		}
	})
}
