package audit

import (
	"errors"
	"fmt"
	"testing"
)

// The ledger stores these numbers.
func TestOutcomes(t *testing.T) {
	for n, want := range []string{"new", "delivered", "dead", "deferred", "dropped", "own", "unknown"} {
		if got := Outcome(n).String(); got != want {
			t.Errorf("outcome %d is %q, want %q", n, got, want)
		}
	}
	for o, want := range map[Outcome]uint8{NoOutcome: 0, Delivered: 1, Dead: 2, Deferred: 3, Dropped: 4, Own: 5} {
		if uint8(o) != want {
			t.Errorf("%s is %d, want %d", o, o, want)
		}
	}
}

// An entry that a verdict says nothing about is put again.
func TestZeroVerdict(t *testing.T) {
	if (Verdict{}).Status != Retryable {
		t.Error("the zero verdict is not retryable")
	}
}

func TestSettingsError(t *testing.T) {
	cause := errors.New("cause")
	err := fmt.Errorf("reading: %w", SettingsErrorf("do this", "refused: %w", cause))
	var s *SettingsError
	if !errors.As(err, &s) || Hint(s) != "do this" || s.Error() != "refused: cause" || !errors.Is(err, cause) {
		t.Errorf("got %#v", err)
	}
	if err.Error() != "reading: refused: cause" {
		t.Errorf("got %q", err)
	}
}
