package app

import (
	"context"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/health"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// destinationFunc implements [delivery.Destination].
type destinationFunc func(entries []audit.Entry) ([]audit.Verdict, error)

func (f destinationFunc) Put(_ context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	return f(entries)
}

// What a trigger asked for is put before the entries of a pass, also while puts are watched.
func TestWatchKeepsTheUrgentDestination(t *testing.T) {
	t.Parallel()
	var called, retried []string
	put := func(name string) delivery.Destination {
		return destinationFunc(func([]audit.Entry) ([]audit.Verdict, error) {
			called = append(called, name)
			return []audit.Verdict{{Status: audit.Accepted}, {Status: audit.Retryable, Code: "Throttling"}}, nil
		})
	}
	a := &App{destination: opened{Destination: put("plain"), urgent: put("urgent")}}
	a.Watch(func(d health.Dependency, operation string, err error) {
		if d != health.Destination || operation != "put" || err != nil {
			t.Errorf("%s: %s: %v", d, operation, err)
		}
	}, func(code string) { retried = append(retried, code) })
	for _, d := range []delivery.Destination{a.destination, a.destination.urgent} {
		if _, err := d.Put(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(called, []string{"plain", "urgent"}) || !slices.Equal(retried, []string{"Throttling", "Throttling"}) {
		t.Errorf("puts to %v, made again for %v", called, retried)
	}
}

// The passes of CloudTrail Lake get the destination whose puts go first.
func TestCloudTrailHasAnUrgentDestination(t *testing.T) {
	t.Parallel()
	s := config.Settings{ChannelARN: "arn:aws:cloudtrail:eu-central-1:123456789012:channel/11111111-2222-3333-4444-555555555555"}
	s.UseAWS(aws.Config{Region: "eu-central-1"})
	d, err := openCloudTrail(t.Context(), &s, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if d.urgent == nil || d.urgent == d.Destination {
		t.Error("no urgent destination")
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
