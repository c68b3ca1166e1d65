package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/verify"
)

// askable lets verify ask the emulated destination.
func (w *world) askable() {
	w.env = append(w.env, "AWS_ENDPOINT_URL_CLOUDTRAIL="+w.trailURL, "RELAY_EVENT_DATA_STORE="+cloudtrailtest.EventDataStore)
}

// verify runs relay verify --json, which has to end with a code. It waits for a
// second for what the destination may not show yet, unless it is told otherwise.
func (w *world) verify(want int, args ...string) verify.Report {
	w.tb.Helper()
	if !slices.Contains(args, "--grace") {
		args = append(args, "--grace", "1s")
	}
	r := w.start(nil, append([]string{"verify", "--json"}, args...)...)
	code := r.wait(w.tb)
	var report verify.Report
	if err := decode(r.stdout.Bytes(), &report); err != nil {
		w.tb.Fatalf("verify ended with %d, and its report is not JSON: %v\n%s", code, err, tail(r.stderr.String(), 4000))
	}
	if code != want || report.OK != (want == exitOK) {
		w.tb.Errorf("verify %v ended with %d, want %d: %s\n%s", args, code, want, tail(r.stdout.String(), 2000), tail(r.stderr.String(), 2000))
	}
	// Scripts read this key.
	if report.Repaired != nil && !bytes.Contains(r.stdout.Bytes(), []byte(fmt.Sprintf(`"healed":%t`, report.Repaired.Repaired))) {
		w.tb.Errorf("no healed in %s", tail(r.stdout.String(), 2000))
	}
	return report
}

// verifyUnlessFailing is verify(exitOK) once no relay says that something fails. A relay says
// a moment late that an outage is over, and on a busy machine that something does not answer.
// Any other difference counts at once.
func (w *world) verifyUnlessFailing() (report verify.Report) {
	w.tb.Helper()
	eventually(w.tb, patient, "no relay says that something fails", func() bool {
		r := w.start(nil, "verify", "--json", "--grace", "1s")
		code := r.wait(w.tb)
		report = verify.Report{}
		if err := decode(r.stdout.Bytes(), &report); err != nil {
			w.tb.Fatalf("verify ended with %d: %v\n%s", code, err, tail(r.stderr.String(), 4000))
		}
		if report.Failing == "" && code != exitOK {
			w.tb.Fatalf("verify ended with %d: %s", code, tail(r.stdout.String(), 2000))
		}
		return report.Failing == ""
	})
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

func expectIDs(t *testing.T, what string, f verify.Finding, want ...string) {
	t.Helper()
	got := slices.Clone(f.IDs)
	slices.Sort(got)
	slices.Sort(want)
	if f.Count != len(want) || !slices.Equal(got, want) {
		t.Errorf("%s: %+v, want %q", what, f, want)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	inEachOrder(t, func(t *testing.T, w *world) {
		now := time.Now()
		w.askable()
		const n = 3000
		w.kong.AddSeq(auditlog.Generate(n, 11, auditlog.Mix{From: now.Add(-29 * 24 * time.Hour), To: now.Add(-time.Hour), NoIDEvery: 100}))

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

		human := w.start(nil, "verify", "--grace", "0s")
		if code := human.wait(t); code != exitDifference {
			t.Errorf("ended with %d", code)
		}
		for _, want := range []string{byLedger, byLake, "DIFFERENCE", "--repair"} {
			if !strings.Contains(human.stdout.String(), want) {
				t.Errorf("%q is not in:\n%s", want, human.stdout.String())
			}
		}

		r = w.verify(exitOK, "--repair")
		if r.Repaired == nil || r.Repaired.Delivered != 2 || !r.Repaired.Repaired {
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

func TestVerifyWithoutAskingTheDestination(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{}, cloudtrailtest.Options{})
	w.kong.AddSeq(auditlog.Generate(500, 12, auditlog.Mix{}))
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

func TestVerifyBesideARelayThatRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{RowDelay: 100 * time.Millisecond, Nodes: []kongtest.Node{
		{Hostname: "one"}, {Hostname: "two", Skew: -2 * time.Second}}}, cloudtrailtest.Options{})
	w.askable()
	_, url, _ := w.serve()
	eventually(t, patient, "first pass", func() bool { return w.kong.Stats().Pages > 1 })
	for range 5 {
		for range 20 {
			id := adminRequest(t, w)
			notifyOnce(t, url, id)
		}
		w.verifyUnlessFailing()
	}
}

func TestVerifyErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.AddSeq(auditlog.Generate(100, 14, auditlog.Mix{Plain: true}))
	w.once()
	for _, tc := range []struct {
		name, hint string
		env        []string
	}{
		{"another store", "--event-data-store", []string{"RELAY_EVENT_DATA_STORE=11111111-2222-3333-4444-555555555555"}},
		{"wrong key", "does not belong to AWS_ACCESS_KEY_ID", []string{"AWS_SECRET_ACCESS_KEY=wrong"}},
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
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.AddSeq(auditlog.Generate(100, 15, auditlog.Mix{Plain: true}))
	w.once()
	w.forget(ids(w)[50])
	before := w.trail.Counts().Events
	client := redis.NewClient(&redis.Options{Addr: w.redis.Addr})
	defer client.Close()
	keys, err := client.Keys(t.Context(), "relay:{*}:gen").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("%v: %v", keys, err)
	}
	if err := client.Set(t.Context(), strings.TrimSuffix(keys[0], "gen")+"lease", "another", time.Hour).Err(); err != nil {
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
	t.Parallel()
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
					cloudtrailtest.Options{Unsigned: true, Digest: true, CallsPerSecond: -1})
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
