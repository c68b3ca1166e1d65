package lambdahost

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger/boltledger"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// An invocation that ran out of time over a failure has made no progress by noting that
// passes fail: the next one would fare no better, so this one fails.
func TestAFailureIsNoProgress(t *testing.T) {
	t.Parallel()
	store, err := boltledger.Open(filepath.Join(t.TempDir(), "ledger.db"), boltledger.Options{Source: "kong", Destination: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if err := store.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	lease, err := store.Acquire(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	before := audit.Marks{Cursor: 1_700_000_000, Completed: 1_700_000_001}
	h := &host{app: &app.App{Store: store}}
	cause := fmt.Errorf("%w: %w", pipeline.ErrOutOfTime, audit.WithHint(errors.New("reaching Secrets Manager"), "look at the routes"))
	for name, moved := range map[string]bool{"passes fail": false, "a mark has moved": true} {
		after := before
		after.FailedSince = 1_700_000_100
		if moved {
			after.Cursor++
		}
		if err := lease.SetMarks(t.Context(), after); err != nil {
			t.Fatal(err)
		}
		// As the last of a chain, so that it invokes nothing.
		r := &Result{Pages: 1, Left: "entries after 2023-11-14T22:13:20Z", Chain: maxChain}
		err := h.handOver(t.Context(), audit.Tail, before, r, cause)
		if moved != (err == nil && r.Outcome == Left) {
			t.Errorf("%s: %v, %+v", name, err, r)
		}
		if !moved && (err == nil || !strings.Contains(err.Error(), "nothing came of the time") || audit.Hint(err) != "look at the routes") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
