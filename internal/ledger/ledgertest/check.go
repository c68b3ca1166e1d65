package ledgertest

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// Must ends the test if there is an error.
func Must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Value returns a function that ends the test if there is an error, and else returns the value.
func Value[T any](v T, err error) func(tb testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		Must(tb, err)
		return v
	}
}

// WantErr ends the test unless an error is the one that is wanted.
func WantErr(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Fatalf("error %v, want %v", err, want)
	}
}

// Equal ends the test unless two values are deeply equal.
func Equal(tb testing.TB, got, want any) {
	tb.Helper()
	if !reflect.DeepEqual(got, want) {
		tb.Fatalf("got %v, want %v", got, want)
	}
}

// Outcomes looks entries up.
func Outcomes(tb testing.TB, l Ledger, entries ...audit.Entry) []audit.Outcome {
	tb.Helper()
	return Value(l.Lookup(tb.Context(), entries))(tb)
}

// wantOutcomes ends the test unless the ids of records have the outcomes that are wanted.
func wantOutcomes(tb testing.TB, l Ledger, records []audit.Record, want ...audit.Outcome) {
	tb.Helper()
	entries := make([]audit.Entry, len(records))
	for i := range records {
		entries[i] = audit.Entry{ID: records[i].ID, Timestamp: records[i].Timestamp}
	}
	got := Outcomes(tb, l, entries...)
	for i := range want {
		if got[i] != want[i] {
			tb.Fatalf("%s at %d: %v, want %v", records[i].ID, records[i].Timestamp, got[i], want[i])
		}
	}
}

// wantCounts ends the test unless there are so many undelivered entries.
func wantCounts(tb testing.TB, l Ledger, dead, deferred int) {
	tb.Helper()
	c := Value(l.UndeliveredCounts(tb.Context()))(tb)
	Equal(tb, []int{c.Dead, c.Deferred}, []int{dead, deferred})
}

// wantForgot ends the test unless all that needs what the ledger has forgotten fails with
// an error, and writes nothing.
func wantForgot(tb testing.TB, l Ledger, lease ledger.Lease, want error) {
	tb.Helper()
	for range 2 {
		WantErr(tb, l.Record(bg(), records(1, audit.Dead)), want)
		WantErr(tb, lease.SetMarks(bg(), audit.Marks{Cursor: 1}), want)
		_, err := l.Lookup(bg(), []audit.Entry{{ID: "a", Timestamp: Noon}})
		WantErr(tb, err, want)
		_, err = l.Marks(bg())
		WantErr(tb, err, want)
		_, _, err = l.Recall(bg(), []string{"a"})
		WantErr(tb, err, want)
		_, err = l.Remember(bg(), 0, []audit.Item{{Key: "a", Value: []byte("1"), Until: time.Now().Add(time.Hour)}}, 1)
		WantErr(tb, err, want)
	}
}

// Eventually tries until there is no error, for a minute.
func Eventually(tb testing.TB, try func() error) {
	tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			tb.Fatalf("still: %v", err)
		}
	}
}
