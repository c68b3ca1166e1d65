package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/verify"
)

// TestVerifyOwnReads has a Kong that audits the relay's own reads: their rows
// follow the pass that they belong to.
func TestVerifyOwnReads(t *testing.T) {
	t.Parallel()
	for _, tc := range orders {
		for _, skip := range []string{"false", "true"} {
			t.Run(tc.name+" skip "+skip, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, tc.kong, cloudtrailtest.Options{})
				w.env = append(w.env, "RELAY_SKIP_OWN_READS="+skip)
				w.askable()
				w.kong.AddSeq(auditlog.Generate(2500, 13, auditlog.Mix{}))
				for range 3 {
					w.once()
					w.verify(exitOK)
				}
			})
		}
	}
}

func TestVerifyWindow(t *testing.T) {
	t.Parallel()
	inEachOrder(t, func(t *testing.T, w *world) {
		w.askable()
		at := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
		w.kong.Add(rows("w", 2400, func(i int) time.Time { return at.Add(time.Duration(i) * 10 * time.Second) })...)
		w.once()
		name := func(i int) string { return fmt.Sprintf("w%031d", i) }
		second := func(i int) string { return fmt.Sprint(at.Unix() + int64(i)*10) }
		for _, i := range []int{500, 1000, 1500, 2000} {
			w.forget(name(i))
			w.trail.Remove(name(i + 1))
		}
		r := w.verify(exitDifference, "--since", second(1000), "--until", second(2000))
		expectIDs(t, "missing in the ledger", r.Missing, name(1000), name(1500))
		expectIDs(t, "missing at the destination", r.Destination.Missing, name(1001), name(1501))
		if r.Entries != 1000 || r.Destination.Confirmed != 996 || r.Destination.Unknown.Count+r.Destination.Gone > 0 {
			t.Errorf("%d entries, %+v", r.Entries, r.Destination)
		}
		if r.CompleteThrough != app.Moment(at.Add(9999*time.Second)) {
			t.Errorf("complete through %s", r.CompleteThrough)
		}
		w.verify(exitOK, "--since", second(1002), "--until", second(1500))
		w.verify(exitOK, "--repair", "--since", second(1000), "--until", second(2000))
		r = w.verify(exitDifference)
		expectIDs(t, "left in the ledger", r.Missing, name(500), name(2000))
		expectIDs(t, "left at the destination", r.Destination.Missing, name(501), name(2001))
	})
}

// TestVerifySlices has many slices, seconds that hold several entries, and
// differences everywhere.
func TestVerifySlices(t *testing.T) {
	t.Parallel()
	inEachOrder(t, func(t *testing.T, w *world) {
		w.askable()
		const n = 5000
		at := time.Now().Add(-20 * 24 * time.Hour).Truncate(time.Second)
		second := func(i int) time.Time { return at.Add(time.Duration(i/7*i/7) * 3 * time.Second / 2) }
		w.kong.Add(rows("v", n, second)...)
		w.once("--page-size", "500")
		var lost, forgotten []string
		for i := 3; i < n; i += 97 {
			lost = append(lost, fmt.Sprintf("v%031d", i))
			w.trail.Remove(lost[len(lost)-1])
		}
		for i := 5; i < n; i += 501 {
			forgotten = append(forgotten, fmt.Sprintf("v%031d", i))
			w.forget(forgotten[len(forgotten)-1])
		}
		noFlags := func(string) (string, bool) { return "", false }
		s, err := config.Load(config.NeedKong|config.NeedLedger|config.NeedDestination, noFlags, w.get, os.ReadFile)
		if err != nil {
			t.Fatal(err)
		}
		s.UseAWS(aws.Config{Region: s.Region, BaseEndpoint: &w.trailURL, Credentials: credentials.NewStaticCredentialsProvider(
			cloudtrailtest.AccessKeyID, cloudtrailtest.SecretAccessKey, "")})
		s.PageSize = 100
		a, err := app.Open(t.Context(), s, slog.New(slog.DiscardHandler), io.Discard, config.NeedKong|config.NeedLedger|config.NeedDestination)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		})
		for _, slice := range []int{100, 999, n} {
			r, err := verify.Run(t.Context(), a, verify.Options{Slice: slice})
			if err != nil {
				t.Fatal(err)
			}
			expectIDs(t, "missing in the ledger", r.Missing, forgotten...)
			expectIDs(t, "missing at the destination", r.Destination.Missing, lost...)
			d := r.Destination
			if r.Entries != n || d.Confirmed != n-len(lost)-len(forgotten) || d.Unknown.Count+d.Gone+d.NotDue+d.Repeated.Count > 0 {
				t.Errorf("slices of %d: %d entries, %+v", slice, r.Entries, d)
			}
		}
	})
}

func TestVerifyWhatIsNotDue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.askable()
	now := time.Now()
	w.kong.Add(rows("a", 100, func(i int) time.Time { return now.Add(-20*time.Minute - time.Duration(i)*time.Minute) })...)
	w.once()
	// Newer than the last pass, ahead of Kong's clock, and one that is overdue.
	w.kong.Add(rows("b", 5, func(i int) time.Time { return now.Add(-10*time.Minute + time.Duration(i)*time.Second) })...)
	w.kong.Add(rows("c", 3, func(int) time.Time { return now.Add(time.Hour) })...)
	r := w.verify(exitOK)
	if r.NotDue != 8 || r.CompleteThrough != app.Moment(now.Add(-10*time.Minute-time.Second)) {
		t.Errorf("%d not due, complete through %s", r.NotDue, r.CompleteThrough)
	}
	r = w.verify(exitDifference, "--schedule", "4m")
	if r.Missing.Count != 5 || r.NotDue != 3 {
		t.Errorf("a relay that should have been there: %+v", r)
	}
	w.once()
	if r = w.verify(exitOK); r.NotDue != 0 || r.Destination.Confirmed != 108 || r.Destination.NotDue != 0 {
		t.Errorf("after the pass: %+v, %+v", r, r.Destination)
	}
	// The destination may take its time with what is young.
	young, old := fmt.Sprintf("b%031d", 1), fmt.Sprintf("a%031d", 0)
	w.trail.Remove(young)
	if r = w.verify(exitOK, "--grace", "15m"); r.Destination.NotDue != 1 {
		t.Errorf("%+v", r.Destination)
	}
	expectIDs(t, "with less patience", w.verify(exitDifference, "--grace", "0s").Destination.Missing, young)
	w.trail.Remove(old)
	expectIDs(t, "old", w.verify(exitDifference).Destination.Missing, old, young)
}

func TestVerifyEventsThatKongDoesNotHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.askable()
	at := time.Now().Add(-time.Hour)
	w.kong.Add(rows("a", 100, func(i int) time.Time { return at.Add(time.Duration(i) * time.Second) })...)
	w.once()
	purged, unknown := fmt.Sprintf("a%031d", 50), fmt.Sprintf("a%031d", 51)
	w.kong.Delete(purged, unknown)
	w.forget(unknown)
	r := w.verify(exitOK)
	expectIDs(t, "unknown", r.Destination.Unknown, unknown)
	if r.Destination.Gone != 1 || r.Entries != 98 {
		t.Errorf("%+v", r.Destination)
	}
	w.verify(exitDifference, "--strict")
}

// A log that shows nothing of what was recorded is another Kong's, or was emptied:
// nothing can be said of it, whatever span of time is asked for.
func TestVerifyAnotherLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	at := time.Now().Add(-time.Hour)
	list := rows("a", 100, func(i int) time.Time { return at.Add(time.Duration(i) * time.Second) })
	w.kong.Add(list...)
	w.once()
	w.verify(exitOK, "--until", "55m")
	refused := func(args ...string) {
		t.Helper()
		stdout, stderr := w.says(exitFailed, append([]string{"verify"}, args...)...)
		contains(t, stderr, "kong shows nothing of what was recorded before", "--adopt")
		if strings.Contains(stdout, "complete") {
			t.Errorf("%s", stdout)
		}
	}
	for _, r := range list {
		w.kong.Delete(r.RequestID)
	}
	refused()
	refused("--until", "70m")
	w.kong.Add(rows("b", 100, func(i int) time.Time { return at.Add(time.Duration(i) * time.Second) })...)
	refused()
	refused("--repair")
	refused("--since", "10m")
	if n := w.trail.Counts().Distinct; n != 100 {
		t.Errorf("%d events delivered", n)
	}
}

// Nothing is complete through a time that has not come, whatever Kong's clock says.
func TestVerifyKongsClockIsAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true, DateOffset: 24 * time.Hour}, cloudtrailtest.Options{})
	w.kong.Add(rows("a", 100, func(int) time.Time { return time.Now().Add(-time.Hour) })...)
	w.once()
	r := w.verify(exitOK)
	through, err := time.Parse(time.RFC3339, r.CompleteThrough)
	if err != nil || through.After(time.Now()) {
		t.Errorf("complete through %s", r.CompleteThrough)
	}
}

// A log is complete up to an undelivered entry, also if Kong no longer holds its row, and
// whenever the destination refused it.
func TestVerifyUndeliveredThatKongNoLongerHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	at := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	w.kong.Add(rows("u", 100, func(i int) time.Time { return at.Add(time.Duration(i) * time.Minute) })...)
	w.once()
	purged := audit.Entry{ID: "purged", RequestID: "purged", Timestamp: at.Add(30 * time.Minute).Unix()}
	err := w.ledger().Record(t.Context(), []audit.Record{{
		ID: purged.ID, Timestamp: purged.Timestamp, Retention: time.Hour, Outcome: audit.Dead,
		Undelivered: &audit.Undelivered{Entry: purged, Code: "InvalidData", Since: time.Now()},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r := w.verify(exitDifference); r.DeadLetters != 1 || r.CompleteThrough != app.Moment(at.Add(30*time.Minute-time.Second)) {
		t.Errorf("%d dead letters, complete through %s", r.DeadLetters, r.CompleteThrough)
	}
}

// A log without any entry proves nothing, as one that is off or of another Kong.
func TestVerifyEmptyLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.once()
	if r := w.verify(exitOK); r.CompleteThrough != "" {
		t.Errorf("complete through %s", r.CompleteThrough)
	}
	out, _ := w.says(exitOK, "verify")
	contains(t, out, "shows no entry at all")
}

// An outcome of dead whose stored entry is gone, or in no list any more, is found, and
// the entry read again. What is repaired is no longer a difference.
func TestVerifyFindsWhatTheLedgerLost(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"undelivered", "dead"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			list := rows("a", 100, func(i int) time.Time { return time.Now().Add(-time.Hour + time.Duration(i)*time.Second) })
			lost := list[50].RequestID
			w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{Faults: cloudtrailtest.Faults{IDs: map[string]string{lost: "InvalidData"}}})
			w.kong.Add(list...)
			w.once()
			client := redis.NewClient(&redis.Options{Addr: w.redis.Addr})
			defer client.Close()
			keys, err := client.Keys(t.Context(), "relay:*:"+what).Result()
			if err != nil || len(keys) != 1 || client.Del(t.Context(), keys...).Err() != nil {
				t.Fatal(keys, err)
			}
			expectIDs(t, "unstored", w.verify(exitDifference).Unstored, lost)
			w.trail.SetFaults(cloudtrailtest.Faults{})
			w.says(exitOK, "once", "--full")
			if w.trail.Times(lost) != 0 {
				t.Error("a pass put it again: the test shows nothing")
			}
			if r := w.verify(exitOK, "--repair"); w.trail.Times(lost) != 1 {
				t.Errorf("not repaired: %+v", r)
			}
			w.verify(exitOK)
		})
	}
}
