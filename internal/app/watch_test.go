package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/health"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// cramped is a store whose disk has room for a lease, but for no records.
type cramped struct{ Store }

func (cramped) Record(context.Context, []audit.Record) error {
	return audit.NewSettingsError(errors.New("no space left on device"), "make room")
}
func (cramped) Acquire(context.Context, bool) (ledger.Lease, error) { return nil, nil }
func (cramped) Announce(context.Context, []string, time.Time) error { return nil }
func (cramped) Unannounce(context.Context, []string) error          { return nil }
func (cramped) Begin(context.Context) error                         { return nil }
func (cramped) Marks(context.Context) (audit.Marks, error)          { return audit.Marks{}, nil }

// A ledger that takes the lease and no records fails, and goes on failing.
func TestLedgerThatTakesNoRecords(t *testing.T) {
	var log strings.Builder
	tracker := health.New(slog.New(slog.NewTextHandler(&log, nil)))
	a := &App{Store: cramped{}}
	a.Watch(func(d health.Dependency, operation string, err error) { tracker.Report(time.Now(), d, operation, err) }, nil)
	for range 3 {
		if _, err := a.Store.Acquire(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		_ = a.Store.Record(t.Context(), nil)
		_ = a.Store.Announce(t.Context(), nil, time.Now())
		_, _ = a.Store.Marks(t.Context())
		if s := tracker.State(health.Ledger); s.Status != health.Failing {
			t.Errorf("%+v", s)
		}
	}
	if n := strings.Count(log.String(), "dependency is failing"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
	tracker.Recovered(time.Now(), health.Ledger, RecordOperation)
	if s := tracker.State(health.Ledger); s.Status != health.OK {
		t.Errorf("after a complete pass: %+v", s)
	}
}

// Without the ledger nobody knows how far delivery has come.
func TestVerdictWithoutTheLedger(t *testing.T) {
	s := Status{From: "relay", At: time.Now(), Dependencies: []health.State{{Dependency: health.Ledger, Status: health.Failing, Cause: "connection refused"}}}
	s.Judge()
	if !strings.Contains(s.Verdict, "is not known") || strings.Contains(s.Verdict, "nothing has been delivered") {
		t.Errorf("verdict %q", s.Verdict)
	}
	s.Dependencies[0].Status = health.OK
	s.Judge()
	if s.Verdict != "nothing has been delivered yet" {
		t.Errorf("verdict %q", s.Verdict)
	}
}
