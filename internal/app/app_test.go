package app

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// What a trigger asked for goes before the entries of a pass, also where a host puts
// something between the passes and the destination.
func TestAroundPutsKeepsTheUrgentDestination(t *testing.T) {
	t.Parallel()
	vars := map[string]string{
		"KONG_ADMIN_API": "http://127.0.0.1:1", "RELAY_LEDGER": "bolt:" + filepath.Join(t.TempDir(), "ledger.db"),
		"CHANNEL_ARN":       "arn:aws:cloudtrail:eu-central-1:123456789012:channel/11111111-2222-3333-4444-555555555555",
		"RELAY_DESTINATION": "cloudtrail",
	}
	s, err := config.Load(config.NeedPass, func(string) (string, bool) { return "", false },
		func(name string) string { return vars[name] }, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), s, slog.New(slog.DiscardHandler), io.Discard, config.NeedPass)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	plain, urgent := a.destination.Destination, a.destination.urgent
	if urgent == nil || urgent == plain {
		t.Fatal("no urgent destination")
	}
	var called []delivery.Destination
	a.AroundPuts(func(_ context.Context, to delivery.Destination, _ []audit.Entry) ([]audit.Verdict, error) {
		called = append(called, to)
		return nil, nil
	})
	for _, d := range []delivery.Destination{a.destination, a.destination.urgent} {
		if _, err := d.Put(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
	if len(called) != 2 || called[0] != plain || called[1] != urgent {
		t.Errorf("puts to %v", called)
	}
}

// Whoever waits for the lease of a relay that died gets it in time.
func TestLeaseEndsInTime(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	s, err := config.Load(0, none, func(string) string { return "" }, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	if s.LeaseWait <= ledger.DefaultLease || announce.MissingAfter <= ledger.DefaultLease {
		t.Errorf("a lease lasts %s, relay once waits %s for it, and an id counts as missing after %s", ledger.DefaultLease, s.LeaseWait, announce.MissingAfter)
	}
}
