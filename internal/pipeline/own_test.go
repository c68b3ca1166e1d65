package pipeline

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func TestSkipOwnReads(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, newKong(), func(o *Options) { o.SkipOwnReads, o.PageSize = true, 100 })
			w.kong.ownReads = true
			ids := w.kong.add(span(w.now()-500, 50, 10)...)
			foreign := w.kong.add(w.now())[0]
			own := 0
			for _, req := range []Request{{Kind: audit.Reconcile}, {Kind: audit.Window}, {Kind: audit.Tail}, {Kind: audit.Reconcile, Full: true}} {
				own += w.pass(req).Own
				w.advance(time.Second)
			}
			// All of them are counted once, also those whose rows came after their pass.
			w.kong.ownReads = false
			reads := len(w.kong.all()) - len(ids) - 1
			if own += w.pass(Request{Kind: audit.Reconcile, Full: true}).Own; own != reads {
				t.Errorf("%d own reads were counted, want %d", own, reads)
			}
			if again := w.pass(Request{Kind: audit.Reconcile, Full: true}).Own; again != 0 {
				t.Errorf("%d own reads were counted again", again)
			}
			w.kong.ownReads = true
			w.restart() // a later process knows them from the ledger
			for range 2 {
				w.pass(Request{Kind: audit.Reconcile, Full: true})
			}
			if got := w.destination.ids(); len(got) != len(ids)+1 || w.destination.got(foreign) != 1 {
				t.Errorf("%d were delivered, want %d: %v", len(got), len(ids)+1, got)
			}
		})
	})
}

func TestOwnReadsAreDeliveredByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.ownReads = true
		w.pass(Request{Kind: audit.Reconcile})
		w.kong.ownReads = false
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Own != 0 {
			t.Errorf("%+v", s)
		}
		w.allOnce()
	})
}

// What stands before Kong may repeat the headers of an old answer: an id that it
// names is no reason to leave out an entry that is not a read of the audit log.
func TestOnlyReadsOfTheAuditLogAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.SkipOwnReads = true })
		w.kong.addEntry(audit.Entry{RequestID: "cached", Timestamp: w.now() - 10, Method: "DELETE", Path: "/services/a"})
		w.kong.addEntry(audit.Entry{RequestID: "another", Timestamp: w.now() - 9, Method: "GET", Path: "/audit/requests"})
		w.kong.cachedID = "cached"
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Own != 0 {
			t.Errorf("%d were left out", s.Own)
		}
		w.allOnce()
	})
}
