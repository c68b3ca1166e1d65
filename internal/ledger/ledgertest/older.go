package ledgertest

import (
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// testOlder has a ledger that forgets its last writes.
func testOlder(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	Must(t, x.Record(bg(), []audit.Record{Record("a", Noon, audit.Delivered)}))
	lease := Value(x.Acquire(bg(), true))(t)
	Must(t, lease.SetMarks(bg(), audit.Marks{Cursor: Noon}))
	b.Forget(t, x, 1)
	check := func() {
		t.Helper()
		WantErr(t, x.Record(bg(), []audit.Record{Record("b", Noon, audit.Dead)}), audit.ErrLedgerOlder)
		WantErr(t, lease.SetMarks(bg(), audit.Marks{Cursor: 1}), audit.ErrLedgerOlder)
		_, err := x.Lookup(bg(), []audit.Entry{{ID: "a", Timestamp: Noon}})
		WantErr(t, err, audit.ErrLedgerOlder)
		_, err = x.Marks(bg())
		WantErr(t, err, audit.ErrLedgerOlder)
	}
	check()
	check() // and wrote nothing
	err := x.Begin(bg())
	WantErr(t, err, audit.ErrLedgerOlder)
	Must(t, x.Begin(bg()))
	Equal(t, Value(x.Marks(bg()))(t), audit.Marks{})
	Equal(t, Outcomes(t, x, audit.Entry{ID: "a", Timestamp: Noon}, audit.Entry{ID: "b", Timestamp: Noon}),
		[]audit.Outcome{audit.Delivered, audit.NoOutcome})
	Must(t, x.Record(bg(), []audit.Record{Record("b", Noon, audit.Dead)}))
	Must(t, lease.SetMarks(bg(), audit.Marks{Cursor: 2}))
	if x != y { // whoever shares the ledger starts over as well
		WantErr(t, y.Record(bg(), oneRecord()), audit.ErrLedgerReplaced)
		Must(t, y.Begin(bg()))
	}
	Must(t, y.Record(bg(), oneRecord()))
	Equal(t, Value(y.Marks(bg()))(t), audit.Marks{Cursor: 2})
}

func oneRecord() []audit.Record { return []audit.Record{Record("c", Noon, audit.Delivered)} }

// testMarksAhead has marks that are younger than the ids that they rest on, and a
// relay that was started afterwards.
func testMarksAhead(t *testing.T, b Backend) {
	x, y, _ := b.Open(t, ledger.DefaultLease)
	Must(t, x.Begin(bg()))
	lease := Value(x.Acquire(bg(), true))(t)
	for range 3 {
		Must(t, x.Record(bg(), oneRecord()))
	}
	Must(t, lease.SetMarks(bg(), audit.Marks{Cursor: Noon}))
	b.Forget(t, x, 2)
	err := y.Begin(bg())
	WantErr(t, err, audit.ErrLedgerOlder)
	Must(t, y.Begin(bg()))
	Equal(t, Value(y.Marks(bg()))(t), audit.Marks{})
	Must(t, y.Record(bg(), oneRecord()))
}
