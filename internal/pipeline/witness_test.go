package pipeline

import (
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// A log that shows none of the entries that it must still retain is another Kong's,
// or its table was emptied: the pass fails, and no mark moves.
func TestLogThatForgot(t *testing.T) {
	for name, adopt := range map[string]bool{"as it is": false, "adopted": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, oldest(), func(o *Options) { o.Adopt = adopt })
				w.kong.add(span(w.now()-100, 20, 10)...)
				w.pass(Request{Kind: audit.Reconcile})
				before, err := w.opts.Marks.Marks(t.Context())
				if err != nil || len(before.Witnesses) == 0 {
					t.Fatalf("%+v: %v", before, err)
				}
				w.kong.purge(20)
				w.advance(time.Minute)
				w.kong.add(w.now())
				_, err = w.p.Run(t.Context(), Request{Kind: audit.Reconcile})
				after, marksErr := w.opts.Marks.Marks(t.Context())
				if marksErr != nil {
					t.Fatal(marksErr)
				}
				if adopt {
					if err != nil || after.Cursor <= before.Cursor {
						t.Errorf("%v: marks %+v", err, after)
					}
					return
				}
				failed := after.FailedSince > 0
				after.FailedSince = 0
				if !errors.Is(err, audit.ErrLogMismatch) || audit.Hint(err) == "" || !failed || !reflect.DeepEqual(before, after) {
					t.Errorf("%v: marks %+v, before %+v", err, after, before)
				}
			})
		})
	}
}
