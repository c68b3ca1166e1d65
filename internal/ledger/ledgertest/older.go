package ledgertest

import (
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// testOlder has a ledger that forgets its last writes.
func testOlder(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	a, other, one := Record("a", Noon, audit.Delivered), Record("b", Noon, audit.Dead), records(1, audit.Delivered)
	Must(t, x.Record(bg(), []audit.Record{a}))
	lease := Value(x.Acquire(bg(), true))(t)
	Must(t, lease.SetMarks(bg(), audit.Marks{Cursor: Noon}))
	b.Forget(t, x, 1)
	wantForgot(t, x, lease, audit.ErrLedgerOlder)
	WantErr(t, x.Begin(bg()), audit.ErrLedgerOlder)
	Must(t, x.Begin(bg()))
	Equal(t, Value(x.Marks(bg()))(t), audit.Marks{})
	wantOutcomes(t, x, []audit.Record{a, other}, audit.Delivered, audit.NoOutcome)
	Must(t, x.Record(bg(), []audit.Record{other}))
	Must(t, lease.SetMarks(bg(), audit.Marks{Cursor: 2}))
	if x != y { // whoever shares the ledger starts over as well
		WantErr(t, y.Record(bg(), one), audit.ErrLedgerReplaced)
		Must(t, y.Begin(bg()))
	}
	Must(t, y.Record(bg(), one))
	Equal(t, Value(y.Marks(bg()))(t), audit.Marks{Cursor: 2})
}

// testMarksAhead has marks that are younger than the ids that they rest on, and a
// relay that was started afterwards.
func testMarksAhead(t *testing.T, b Backend) {
	x, y, _ := b.Open(t, ledger.DefaultLease)
	Must(t, x.Begin(bg()))
	lease := Value(x.Acquire(bg(), true))(t)
	for range 3 {
		Must(t, x.Record(bg(), records(1, audit.Delivered)))
	}
	Must(t, lease.SetMarks(bg(), audit.Marks{Cursor: Noon}))
	b.Forget(t, x, 2)
	err := y.Begin(bg())
	WantErr(t, err, audit.ErrLedgerOlder)
	Must(t, y.Begin(bg()))
	Equal(t, Value(y.Marks(bg()))(t), audit.Marks{})
	Must(t, y.Record(bg(), records(1, audit.Delivered)))
}
