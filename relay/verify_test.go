package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// askable lets verify ask the emulated destination.
func (w *world) askable() {
	w.env = append(w.env, "AWS_ENDPOINT_URL_CLOUDTRAIL="+w.trailURL, "RELAY_EVENT_DATA_STORE="+cloudtrailtest.EventDataStore)
}

// verify runs relay verify --json, which has to end with a code.
func (w *world) verify(want int, args ...string) verifyReport {
	w.tb.Helper()
	r := w.start(nil, append([]string{"verify", "--json"}, args...)...)
	code := r.wait(w.tb)
	var report verifyReport
	if err := json.Unmarshal(r.stdout.Bytes(), &report); err != nil {
		w.tb.Fatalf("verify ended with %d, and its report is not JSON: %v\n%s", code, err, tail(r.stderr.String(), 4000))
	}
	if code != want || report.OK != (want == exitOK) {
		w.tb.Errorf("verify %v ended with %d, want %d: %s\n%s", args, code, want, tail(r.stdout.String(), 2000), tail(r.stderr.String(), 2000))
	}
	return report
}

// forget takes an id out of the ledger.
func (w *world) forget(id string) {
	w.tb.Helper()
	client := redis.NewClient(&redis.Options{Addr: w.redis.Addr})
	defer client.Close()
	ctx := context.Background()
	keys, err := client.Keys(ctx, "relay:{*}:*:*").Result()
	if err != nil {
		w.tb.Fatal(err)
	}
	for _, k := range keys {
		if client.Type(ctx, k).Val() != "hash" {
			continue
		}
		if n, err := client.HDel(ctx, k, id).Result(); err != nil {
			w.tb.Fatal(err)
		} else if n > 0 {
			return
		}
	}
	w.tb.Fatalf("no bucket holds %s", id)
}

// flush empties Redis.
func (w *world) flush() {
	w.tb.Helper()
	client := redis.NewClient(&redis.Options{Addr: w.redis.Addr})
	defer client.Close()
	if err := client.FlushAll(context.Background()).Err(); err != nil {
		w.tb.Fatal(err)
	}
}

func ids(w *world) []string { return slices.Collect(w.kong.IDs()) }

func expectIDs(t *testing.T, what string, f finding, want ...string) {
	t.Helper()
	got := slices.Clone(f.IDs)
	slices.Sort(got)
	slices.Sort(want)
	if f.Count != len(want) || !slices.Equal(got, want) {
		t.Errorf("%s: %+v, want %q", what, f, want)
	}
}

func TestVerify(t *testing.T) {
	for _, tc := range orders {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			tc.kong.SkipReads = true
			w := newWorld(t, tc.kong, cloudtrailtest.Options{})
			w.askable()
			const n = 3000
			w.kong.AddSeq(kongtest.Generate(n, 11, kongtest.Mix{From: now.Add(-29 * 24 * time.Hour), To: now.Add(-time.Hour), NoIDEvery: 100}))

			r := w.verify(exitDifference)
			if r.Missing.Count != n || len(r.Missing.IDs) != n || r.Delivered != 0 || r.Entries != n {
				t.Errorf("before the first pass: %d of %d missing, %d named", r.Missing.Count, r.Entries, len(r.Missing.IDs))
			}
			w.once()
			healthy := w.verify(exitOK)
			if d := healthy.Destination; healthy.Delivered != n || d == nil || d.Confirmed != n || d.Repeated.Count+d.Unknown.Count+d.Gone > 0 {
				t.Errorf("after a pass: %+v, %+v", healthy, d)
			}
			through, err := time.Parse(time.RFC3339, healthy.CompleteThrough)
			if err != nil || through.Before(now.Add(-2*time.Second)) || through.After(time.Now()) {
				t.Errorf("complete through %s", healthy.CompleteThrough)
			}

			held := slices.DeleteFunc(ids(w), func(id string) bool { return id == "" })
			byLedger, byLake := held[len(held)/3], held[len(held)/2]
			w.forget(byLedger)
			if !w.trail.Remove(byLake) {
				t.Fatal("the event is not there")
			}
			r = w.verify(exitDifference)
			expectIDs(t, "missing in the ledger", r.Missing, byLedger)
			expectIDs(t, "missing at the destination", r.Destination.Missing, byLake)

			human := w.start(nil, "verify")
			if code := human.wait(t); code != exitDifference {
				t.Errorf("ended with %d", code)
			}
			for _, want := range []string{byLedger, byLake, "DIFFERENCE", "--repair"} {
				if !strings.Contains(human.stdout.String(), want) {
					t.Errorf("%q is not in:\n%s", want, human.stdout.String())
				}
			}

			r = w.verify(exitOK, "--repair")
			if r.Repaired == nil || r.Repaired.Delivered != 2 || !r.Repaired.Healed {
				t.Errorf("repaired: %+v", r.Repaired)
			}
			if w.trail.Times(byLake) != 1 || w.trail.Times(byLedger) != 2 {
				t.Errorf("the lost one is there %d times, the forgotten one %d", w.trail.Times(byLake), w.trail.Times(byLedger))
			}
			r = w.verify(exitOK)
			expectIDs(t, "repeated", r.Destination.Repeated, byLedger)
			w.verify(exitDifference, "--strict")

			w.flush()
			if r = w.verify(exitDifference); r.Missing.Count != n {
				t.Errorf("%d missing after Redis was emptied", r.Missing.Count)
			}
			w.once("--full")
			if r = w.verify(exitOK); r.Destination.Repeated.Count != n {
				t.Errorf("%d repeated after Redis was emptied", r.Destination.Repeated.Count)
			}
		})
	}
}

func TestVerifyWithoutAskingTheDestination(t *testing.T) {
	w := newWorld(t, kongtest.Options{}, cloudtrailtest.Options{})
	w.kong.AddSeq(kongtest.Generate(500, 12, kongtest.Mix{}))
	w.once()
	if r := w.verify(exitOK); r.Destination != nil || r.Delivered < 500 {
		t.Errorf("%+v", r)
	}
	human := w.start(nil, "verify")
	if code := human.wait(t); code != exitOK || !strings.Contains(human.stdout.String(), "not asked") || !strings.Contains(human.stdout.String(), "No difference") {
		t.Errorf("ended with %d:\n%s", code, human.stdout.String())
	}
	r := w.start(nil, "verify", "--grace", "-1s")
	if code := r.wait(t); code != exitUsage {
		t.Errorf("a negative grace ended with %d", code)
	}
}

// TestVerifyOwnReads has a Kong that audits the relay's own reads: their rows
// follow the pass that they belong to.
func TestVerifyOwnReads(t *testing.T) {
	for _, tc := range orders {
		for _, skip := range []string{"false", "true"} {
			t.Run(tc.name+" skip "+skip, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, tc.kong, cloudtrailtest.Options{})
				w.env = append(w.env, "RELAY_SKIP_OWN_READS="+skip)
				w.askable()
				w.kong.AddSeq(kongtest.Generate(2500, 13, kongtest.Mix{}))
				for range 3 {
					w.once()
					w.verify(exitOK)
				}
			})
		}
	}
}

func TestVerifyWindow(t *testing.T) {
	for _, tc := range orders {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.kong.SkipReads = true
			w := newWorld(t, tc.kong, cloudtrailtest.Options{})
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
			if r.CompleteThrough != moment(at.Unix()+9999) {
				t.Errorf("complete through %s", r.CompleteThrough)
			}
			w.verify(exitOK, "--since", second(1002), "--until", second(1500))
			w.verify(exitOK, "--repair", "--since", second(1000), "--until", second(2000))
			r = w.verify(exitDifference)
			expectIDs(t, "left in the ledger", r.Missing, name(500), name(2000))
			expectIDs(t, "left at the destination", r.Destination.Missing, name(501), name(2001))
		})
	}
}

// TestVerifySlices has many slices, seconds that hold several entries, and
// differences everywhere.
func TestVerifySlices(t *testing.T) {
	for _, tc := range orders {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.kong.SkipReads = true
			w := newWorld(t, tc.kong, cloudtrailtest.Options{})
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
			flags, getenv, readFile := given(nil, w.env, nil)
			s, err := loadSettings(needKong|needLedger|needDestination, flags, getenv, readFile)
			if err != nil {
				t.Fatal(err)
			}
			s.aws.load = func(context.Context) (aws.Config, error) {
				return aws.Config{BaseEndpoint: &w.trailURL, Credentials: credentials.NewStaticCredentialsProvider(
					cloudtrailtest.AccessKeyID, cloudtrailtest.SecretAccessKey, "")}, nil
			}
			s.PageSize = 100
			a, err := open(t.Context(), s, slog.New(slog.DiscardHandler), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := a.close(); err != nil {
					t.Error(err)
				}
			})
			l, err := a.openLake(t.Context())
			if err != nil || l == nil {
				t.Fatal(l, err)
			}
			for _, slice := range []int{100, 999, n} {
				v := &verification{app: a, passes: a.pipeline(pipeline.Observer{}), lake: l, slice: slice, grace: 900, reach: 3900}
				if err := v.run(t.Context()); err != nil {
					t.Fatal(err)
				}
				expectIDs(t, "missing in the ledger", v.report.Missing, forgotten...)
				expectIDs(t, "missing at the destination", v.report.Destination.Missing, lost...)
				d := v.report.Destination
				if v.report.Entries != n || d.Confirmed != n-len(lost)-len(forgotten) || d.Unknown.Count+d.Gone+d.NotDue+d.Repeated.Count > 0 {
					t.Errorf("slices of %d: %d entries, %+v", slice, v.report.Entries, d)
				}
			}
		})
	}
}

func TestVerifyWhatIsNotDue(t *testing.T) {
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.askable()
	now := time.Now()
	w.kong.Add(rows("a", 100, func(i int) time.Time { return now.Add(-20*time.Minute - time.Duration(i)*time.Minute) })...)
	w.once()
	// Newer than the last pass, ahead of Kong's clock, and one that is overdue.
	w.kong.Add(rows("b", 5, func(i int) time.Time { return now.Add(-10*time.Minute + time.Duration(i)*time.Second) })...)
	w.kong.Add(rows("c", 3, func(int) time.Time { return now.Add(time.Hour) })...)
	r := w.verify(exitOK)
	if r.NotDue != 8 || r.CompleteThrough != moment(now.Add(-10*time.Minute).Unix()-1) {
		t.Errorf("%d not due, complete through %s", r.NotDue, r.CompleteThrough)
	}
	r = w.verify(exitDifference, "--schedule", "4m")
	if r.Missing.Count != 5 || r.NotDue != 3 {
		t.Errorf("a relay that should have been there: %+v", r)
	}
	w.once()
	if r = w.verify(exitOK); r.NotDue != 0 || r.Destination.Confirmed != 105 || r.Destination.NotDue != 3 {
		t.Errorf("after the pass: %+v, %+v", r, r.Destination)
	}
	// The destination may take its time with what is young.
	young, old := fmt.Sprintf("b%031d", 1), fmt.Sprintf("a%031d", 0)
	w.trail.Remove(young)
	if r = w.verify(exitOK); r.Destination.NotDue != 4 {
		t.Errorf("%+v", r.Destination)
	}
	expectIDs(t, "with less patience", w.verify(exitDifference, "--grace", "5m").Destination.Missing, young)
	w.trail.Remove(old)
	expectIDs(t, "old", w.verify(exitDifference).Destination.Missing, old)
}

func TestVerifyEventsThatKongDoesNotHold(t *testing.T) {
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

func TestVerifyBesideARelayThatRuns(t *testing.T) {
	w := newWorld(t, kongtest.Options{RowDelay: 100 * time.Millisecond, Nodes: []kongtest.Node{
		{Hostname: "one"}, {Hostname: "two", Skew: -2 * time.Second}}}, cloudtrailtest.Options{})
	w.askable()
	_, url, _ := w.serve()
	eventually(t, 20*time.Second, "first pass", func() bool { return w.kong.Stats().Pages > 1 })
	for range 5 {
		for range 20 {
			id := adminRequest(t, w)
			ringOnce(t, url, id)
		}
		w.verify(exitOK)
	}
}

func TestVerifyErrors(t *testing.T) {
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.AddSeq(kongtest.Generate(100, 14, kongtest.Mix{Plain: true}))
	w.once()
	for _, tc := range []struct {
		name, hint string
		env        []string
	}{
		{"another store", "--event-data-store", []string{"RELAY_EVENT_DATA_STORE=11111111-2222-3333-4444-555555555555"}},
		{"wrong key", "credentials", []string{"AWS_SECRET_ACCESS_KEY=wrong"}},
		{"Redis down", "start Redis", []string{"REDIS_HOST=127.0.0.1:1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := *w
			w.tb = t
			w.env = slices.Clone(w.env)
			w.askable()
			r := w.start(tc.env, "verify")
			if code := r.wait(t); code != exitFailed || !strings.Contains(r.stderr.String(), tc.hint) {
				t.Errorf("ended with %d:\n%s", code, r.stderr.String())
			}
		})
	}
	w.askable()
	out, _ := w.says(exitOK, "check")
	contains(t, out, "ok      queries")
	out, _ = w.says(exitFailed, "check", "--event-data-store", "11111111-2222-3333-4444-555555555555")
	contains(t, out, "FAILED  queries", "--event-data-store")
	w.forget(ids(w)[50])
	r := w.start([]string{"RELAY_LEASE_WAIT=0s"}, "verify", "--repair")
	if code := r.wait(t); code != exitOK {
		t.Errorf("ended with %d:\n%s", code, r.stderr.String())
	}
}

// TestVerifyRepairWaitsForTheLease has another relay at work.
func TestVerifyRepairWaitsForTheLease(t *testing.T) {
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.AddSeq(kongtest.Generate(100, 15, kongtest.Mix{Plain: true}))
	w.once()
	w.forget(ids(w)[50])
	before := w.trail.Counts().Events
	client := redis.NewClient(&redis.Options{Addr: w.redis.Addr})
	defer client.Close()
	keys, err := client.Keys(t.Context(), "relay:{*}:gen").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("%v: %v", keys, err)
	}
	if err := client.Set(t.Context(), strings.TrimSuffix(keys[0], "gen")+"lease", "another", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	r := w.start([]string{"RELAY_LEASE_WAIT=1s"}, "verify", "--repair")
	if code := r.wait(t); code != exitFailed || !bytes.Contains(r.stderr.Bytes(), []byte("another relay")) {
		t.Errorf("ended with %d:\n%s", code, r.stderr.String())
	}
	if n := w.trail.Counts().Events; n != before {
		t.Errorf("%d events without the lease", n-before)
	}
}

func TestVerifyShowsSignaturesThatFail(t *testing.T) {
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&signer.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, withTime := range []bool{false, true} {
		w := newWorld(t, kongtest.Options{SkipReads: true, SigningKey: signer, SignTimestamp: withTime}, cloudtrailtest.Options{})
		w.env = append(w.env, "RELAY_AUDIT_PUBLIC_KEY="+string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
		list := rows("s", 100, func(i int) time.Time { return time.Now().Add(-time.Hour + time.Duration(i)*time.Second) })
		forged := "c2lnbmVkIGJ5IHNvbWVib2R5IGVsc2U="
		list[42].Signature = &forged
		w.kong.Add(list...)
		w.once()
		r := w.verify(exitOK)
		expectIDs(t, "signatures", r.SignatureFailed, list[42].RequestID)
		w.verify(exitDifference, "--strict")
		marked := 0
		for _, e := range w.trail.Events() {
			if strings.Contains(e.Data, `"signatureVerification":"failed"`) {
				marked++
			}
		}
		if marked != 1 || w.trail.Times(list[42].RequestID) != 1 {
			t.Errorf("%d events are marked", marked)
		}
	}
}

// BenchmarkVerify reports CPU, time and memory of verify over 200,000 entries.
func BenchmarkVerify(b *testing.B) {
	const n = 200_000
	for _, order := range []struct {
		name string
		kong kongtest.Order
	}{{"oldest first", kongtest.Filtered}, {"newest first", kongtest.NewestFirst}, {"no order", kongtest.Unordered}} {
		for _, asked := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/asked=%t", order.name, asked), func(b *testing.B) {
				w := newWorld(b, kongtest.Options{SkipReads: true, Order: order.kong},
					cloudtrailtest.Options{Unsigned: true, Keep: cloudtrailtest.KeepDigests, CallsPerSecond: -1})
				plain(n)(w.kong)
				w.once("--full", "--put-rate", "10000")
				if asked {
					w.askable()
				}
				for b.Loop() {
					begin := time.Now()
					r := w.start(nil, "verify", "--json")
					go r.watchMemory()
					if code := r.wait(b); code != exitOK {
						b.Fatalf("ended with %d: %s %s", code, r.stdout.String(), r.stderr.String())
					}
					state := r.cmd.ProcessState
					b.ReportMetric(float64((state.UserTime()+state.SystemTime()).Microseconds())/n, "cpu-µs/entry")
					b.ReportMetric(time.Since(begin).Seconds(), "s")
					b.ReportMetric(float64(r.peak.Load())/(1<<20), "peak-MiB")
				}
			})
		}
	}
}
