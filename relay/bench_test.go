package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrail"
	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/kongadmin"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/lease"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisledger"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// lean are emulators that cost as little as they can beside what is measured.
func lean() (kongtest.Options, cloudtrailtest.Options) {
	return kongtest.Options{SkipReads: true}, cloudtrailtest.Options{Lean: true, Unsigned: true, CallsPerSecond: -1}
}

// costs are what relay processes cost, a value for each run.
type costs map[string][]float64

func (c costs) add(r *relayRun, s pipeline.Summary, wall time.Duration) {
	state := r.cmd.ProcessState
	cpu := state.UserTime() + state.SystemTime()
	for unit, v := range map[string]float64{
		"cpu-µs/entry": float64(cpu.Microseconds()) / float64(s.Read), "entries/s": float64(s.Read) / wall.Seconds(),
		"s": wall.Seconds(), "peak-MiB": float64(r.peak.Load()) / (1 << 20),
	} {
		c[unit] = append(c[unit], v)
	}
}

// report gives the median of each.
func (c costs) report(b *testing.B) {
	for unit, list := range c {
		slices.Sort(list)
		b.ReportMetric(list[len(list)/2], unit)
	}
}

// benchOnce runs the built relay over a log and reports CPU, rate and memory.
// RELAY_BENCH_ENV holds further variables for it, such as "GOGC=50".
func benchOnce(b *testing.B, kong kongtest.Options, trail cloudtrailtest.Options, fill func(*kongtest.Server), args ...string) {
	all := costs{}
	defer all.report(b)
	for b.Loop() {
		b.StopTimer()
		w := newWorld(b, kong, trail)
		fill(w.kong)
		if _, err := relayBinary(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		begin := time.Now()
		r := w.start(strings.Fields(os.Getenv("RELAY_BENCH_ENV")), append([]string{"once", "--full", "--json"}, args...)...)
		go r.watchMemory()
		if code := r.wait(b); code != 0 {
			b.Fatalf("relay once ended with %d:\n%s", code, tail(r.stderr.String(), 4000))
		}
		all.add(r, r.summary(b), time.Since(begin))
		b.StopTimer()
		if lost := w.lost(); len(lost) > 0 {
			b.Fatalf("%d entries lost", len(lost))
		}
		b.StartTimer()
	}
}

func plain(n int) func(*kongtest.Server) {
	return func(k *kongtest.Server) { k.AddSeq(auditlog.Generate(n, 1, auditlog.Mix{Plain: true})) }
}

// BenchmarkOnceQuota has the delays of a network and the quota of AWS.
func BenchmarkOnceQuota(b *testing.B) {
	kong, trail := lean()
	kong.Latency = 20 * time.Millisecond
	trail.Faults.Delay = 50 * time.Millisecond
	trail.CallsPerSecond = 0
	benchOnce(b, kong, trail, plain(20_000))
}

// BenchmarkOnceNoDelay shows what an entry costs.
func BenchmarkOnceNoDelay(b *testing.B) {
	kong, trail := lean()
	benchOnce(b, kong, trail, plain(20_000), "--put-rate", "10000")
}

// BenchmarkOnceMillion shows that memory does not grow with the log.
func BenchmarkOnceMillion(b *testing.B) {
	kong, trail := lean()
	benchOnce(b, kong, trail, plain(1_000_000), "--put-rate", "10000")
}

// BenchmarkOnceLargePayloads has 1,000 payloads of 300 kB in a row.
func BenchmarkOnceLargePayloads(b *testing.B) {
	kong, trail := lean()
	benchOnce(b, kong, trail, func(k *kongtest.Server) {
		k.AddSeq(auditlog.Generate(1000, 1, auditlog.Mix{Plain: true, LargeEvery: 1, LargeBytes: 300_000}))
	}, "--put-rate", "10000")
}

// BenchmarkInProcess compares the pipeline with the plain loop of page, check,
// map, put and record, one after the other and 100 at a time, over the same
// adapters and the same Redis.
func BenchmarkInProcess(b *testing.B) {
	const n = 20_000
	kong, trail := lean()
	adapters := func(b *testing.B) (*kongadmin.Client, *cloudtrail.Destination, *redisledger.Ledger) {
		w := newWorld(b, kong, trail)
		plain(n)(w.kong)
		vars := map[string]string{}
		for _, kv := range w.env {
			for i := range kv {
				if kv[i] == '=' {
					vars[kv[:i]] = kv[i+1:]
					break
				}
			}
		}
		source, err := kongadmin.New(kongadmin.Options{URL: vars["KONG_ADMIN_API"], Token: func(context.Context, bool) (string, error) { return testToken, nil }})
		if err != nil {
			b.Fatal(err)
		}
		endpoint := vars["AWS_ENDPOINT_URL_CLOUDTRAIL_DATA"]
		destination, err := cloudtrail.New(cloudtrail.Options{ChannelARN: cloudtrailtest.ChannelARN, Config: aws.Config{BaseEndpoint: &endpoint,
			Credentials: credentials.NewStaticCredentialsProvider(cloudtrailtest.AccessKeyID, cloudtrailtest.SecretAccessKey, "")}})
		if err != nil {
			b.Fatal(err)
		}
		store := redisledger.Open(redisconn.Options{Addrs: []string{w.redis.Addr}}, redisledger.Options{Source: "kong", Destination: "bench"})
		b.Cleanup(func() { store.Close() })
		return source, destination, store
	}
	b.Run("loop", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			source, destination, store := adapters(b)
			b.StartTimer()
			if err := plainLoop(b.Context(), source, destination, store); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
	b.Run("pipeline", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			source, destination, store := adapters(b)
			b.StartTimer()
			sum, err := pipeline.New(pipeline.Options{Source: source, Destination: destination, Ledger: store, Marks: store, Undelivered: store, OwnReads: store, Lease: keeperOf(store)}).
				Run(b.Context(), pipeline.Request{Kind: audit.Reconcile})
			if err != nil || sum.Delivered != n {
				b.Fatalf("%+v: %v", sum, err)
			}
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
}

// keeperOf keeps the lease of a ledger.
func keeperOf(store *redisledger.Ledger) *lease.Keeper {
	return lease.NewKeeper(lease.Options{Acquire: store.Acquire, Begin: store.Begin})
}

// plainLoop is the simplest thing that could deliver the log.
func plainLoop(ctx context.Context, source *kongadmin.Client, destination delivery.Destination, store *redisledger.Ledger) error {
	if err := store.Begin(ctx); err != nil {
		return err
	}
	for q := (audit.Query{Size: 100, Ascending: true}); ; {
		page, err := source.Page(ctx, q)
		if err != nil {
			return err
		}
		outcomes, err := store.Lookup(ctx, page.Entries)
		if err != nil {
			return err
		}
		var fresh []audit.Entry
		for i, o := range outcomes {
			if o == audit.NoOutcome {
				fresh = append(fresh, page.Entries[i])
			}
		}
		verdicts, err := destination.Put(ctx, fresh)
		if err != nil {
			return err
		}
		var records []audit.Record
		for i, v := range verdicts {
			if v.Status == audit.Accepted {
				records = append(records, audit.Record{ID: fresh[i].ID, Timestamp: fresh[i].Timestamp, Retention: 30 * 24 * time.Hour, Outcome: audit.Delivered})
			}
		}
		if err := store.Record(ctx, records); err != nil {
			return err
		}
		if q.Offset = page.Offset; q.Offset == "" {
			return nil
		}
	}
}

// BenchmarkHistory is relay history as a process, over 100,000 requests that Kong retains
// and the 30,000 entities that they changed.
func BenchmarkHistory(b *testing.B) {
	w := newWorld(b, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	i := 0
	for row := range auditlog.Generate(100_000, 1, auditlog.Mix{To: time.Now().Add(-time.Minute), Plain: true}) {
		if i++; i%10 < 3 {
			n := i % 1000
			row.Method, row.Path, row.Status = "PATCH", fmt.Sprintf("/routes/route-%d", n), 200
			w.kong.AddObjects(auditlog.Object{
				ID: fmt.Sprint(i), RequestID: row.RequestID, EntityKey: fmt.Sprint("key-", n), DAOName: "routes", Operation: "update", RequestTimestamp: row.RequestTimestamp,
				Entity: fmt.Sprintf(`{"id":"key-%d","name":"route-%d","updated_at":%d,"paths":["\/a\/%d"],"tags":["%s"]}`, n, n, row.RequestTimestamp, i, strings.Repeat("x", 500)),
			})
		}
		w.kong.Add(row)
	}
	if _, err := relayBinary(); err != nil { // which may have to be built
		b.Fatal(err)
	}
	for b.Loop() {
		r := w.start(nil, "history", "--json", "routes/route-42")
		if code := r.wait(b); code != exitOK || bytes.Count(r.stdout.Bytes(), []byte("\n")) != 100 {
			b.Fatalf("%d: %s", code, r.stderr.String())
		}
		b.ReportMetric((r.cmd.ProcessState.UserTime() + r.cmd.ProcessState.SystemTime()).Seconds(), "cpu-s")
	}
}
