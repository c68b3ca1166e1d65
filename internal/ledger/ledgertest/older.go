package ledgertest

import (
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// testOlder has a ledger that forgets its last writes.
func testOlder(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	must(t, x.Record(bg(), []audit.Record{Record("a", Noon, audit.Delivered)}))
	lease := value(x.Acquire(bg(), true))(t)
	must(t, lease.SetMarks(bg(), audit.Marks{Cursor: Noon}))
	b.Forget(t, x, 1)
	check := func() {
		t.Helper()
		wantErr(t, x.Record(bg(), []audit.Record{Record("b", Noon, audit.Dead)}), audit.ErrLedgerOlder)
		wantErr(t, lease.SetMarks(bg(), audit.Marks{Cursor: 1}), audit.ErrLedgerOlder)
		_, err := x.Lookup(bg(), []audit.Entry{{ID: "a", Timestamp: Noon}})
		wantErr(t, err, audit.ErrLedgerOlder)
		_, err = x.Marks(bg())
		wantErr(t, err, audit.ErrLedgerOlder)
	}
	check()
	check() // and wrote nothing
	_, err := x.Begin(bg())
	wantErr(t, err, audit.ErrLedgerOlder)
	equal(t, value(x.Begin(bg()))(t), false)
	equal(t, value(x.Marks(bg()))(t), audit.Marks{})
	equal(t, outcomes(t, x, audit.Entry{ID: "a", Timestamp: Noon}, audit.Entry{ID: "b", Timestamp: Noon}),
		[]audit.Outcome{audit.Delivered, audit.NoOutcome})
	must(t, x.Record(bg(), []audit.Record{Record("b", Noon, audit.Dead)}))
	must(t, lease.SetMarks(bg(), audit.Marks{Cursor: 2}))
	if x != y { // whoever shares the ledger starts over as well
		wantErr(t, y.Record(bg(), oneRecord()), audit.ErrLedgerReplaced)
		equal(t, value(y.Begin(bg()))(t), false)
	}
	must(t, y.Record(bg(), oneRecord()))
	equal(t, value(y.Marks(bg()))(t), audit.Marks{Cursor: 2})
}

func oneRecord() []audit.Record { return []audit.Record{Record("c", Noon, audit.Delivered)} }

// testMarksAhead has marks that are younger than the ids that they rest on, and a
// relay that was started afterwards.
func testMarksAhead(t *testing.T, b Backend) {
	x, y, _ := b.Open(t, ledger.DefaultLease)
	value(x.Begin(bg()))(t)
	lease := value(x.Acquire(bg(), true))(t)
	for range 3 {
		must(t, x.Record(bg(), oneRecord()))
	}
	must(t, lease.SetMarks(bg(), audit.Marks{Cursor: Noon}))
	b.Forget(t, x, 2)
	_, err := y.Begin(bg())
	wantErr(t, err, audit.ErrLedgerOlder)
	equal(t, value(y.Begin(bg()))(t), false)
	equal(t, value(y.Marks(bg()))(t), audit.Marks{})
	must(t, y.Record(bg(), oneRecord()))
}
