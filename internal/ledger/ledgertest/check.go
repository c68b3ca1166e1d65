package ledgertest

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
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

// Eventually tries until there is no error, for 15 seconds.
func Eventually(tb testing.TB, try func() error) {
	tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(15 * time.Second); ; <-tick.C {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			tb.Fatalf("still: %v", err)
		}
	}
}
