package pipeline

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/delivery"
)

// What waits is told while a pass still tries, stands after it has failed, and is
// over once all of it has been delivered.
func TestOldestWaiting(t *testing.T) {
	ways(t, func(t *testing.T, gateway func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			var told, during atomic.Int64
			w := newWorld(t, gateway(), func(o *Options) {
				o.Observer.OldestPending = told.Store
				o.BatchEntries = 7
			})
			first := w.now() - 400
			w.kong.add(span(first, 130, 3)...)
			w.destination.put = func(ctx context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error) {
				if n >= 60 { // all has been read long before the last one
					during.Store(told.Load())
				}
				return down(ctx, n, entries)
			}
			if _, err := w.run(Request{Kind: audit.Reconcile}); !errors.Is(err, delivery.ErrUnavailable) {
				t.Fatal(err)
			}
			if during.Load() != first || told.Load() != first {
				t.Errorf("told %d during the pass and %d after it, want %d", during.Load(), told.Load(), first)
			}
			w.destination.put = nil
			w.pass(Request{Kind: audit.Reconcile})
			if told.Load() != 0 {
				t.Errorf("told %d after everything was delivered", told.Load())
			}
		})
	})
}
