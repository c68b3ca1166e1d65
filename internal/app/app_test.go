package app

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/delivery"
)

type counting struct {
	delivery.Destination
	puts *int
}

func (c counting) Put(context.Context, []audit.Entry) ([]audit.Verdict, error) {
	*c.puts++
	return nil, nil
}

// What a trigger asked for goes before the entries of a pass, also where a host puts
// something between the passes and the destination.
func TestWrapDestinationKeepsTheUrgentDestination(t *testing.T) {
	t.Parallel()
	vars := map[string]string{
		"KONG_ADMIN_API": "http://127.0.0.1:1", "RELAY_LEDGER": "bolt:" + filepath.Join(t.TempDir(), "ledger.db"),
		"CHANNEL_ARN":       "arn:aws:cloudtrail:eu-central-1:123456789012:channel/11111111-2222-3333-4444-555555555555",
		"RELAY_DESTINATION": "cloudtrail",
	}
	s, err := config.Load(config.NeedKong|config.NeedLedger|config.NeedDestination, func(string) (string, bool) { return "", false },
		func(name string) string { return vars[name] }, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), s, slog.New(slog.DiscardHandler), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	plain, urgent := a.Destination, a.urgent
	if urgent == nil || urgent == delivery.Destination(plain) {
		t.Fatal("no urgent destination")
	}
	puts, wrapped := 0, []delivery.Destination{}
	a.WrapDestination(func(d delivery.Destination) delivery.Destination {
		wrapped = append(wrapped, d)
		return counting{d, &puts}
	})
	if len(wrapped) != 2 || wrapped[0] != delivery.Destination(plain) || wrapped[1] != urgent {
		t.Errorf("wrapped %v", wrapped)
	}
	for _, d := range []delivery.Destination{a.Destination, a.urgent} {
		if _, err := d.Put(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
	if puts != 2 {
		t.Errorf("%d puts went by way of what was put between", puts)
	}
}
