package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrail"
	"github.com/kong-cloudtrail/relay/internal/cloudwatch"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/kongadmin"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisledger"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// benchLogs runs the built relay over a log into CloudWatch Logs and reports CPU,
// rate, memory and the calls that its quota counts.
func benchLogs(b *testing.B, n int, latency, delay time.Duration, env ...string) {
	all := costs{}
	defer all.report(b)
	for b.Loop() {
		b.StopTimer()
		w, logs := newLogsWorld(b, kongtest.Options{SkipReads: true, Latency: latency},
			cloudwatchtest.Options{Lean: true, Faults: cloudwatchtest.Faults{Delay: delay}})
		plain(n)(w.kong)
		if _, err := relayBinary(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		begin := time.Now()
		r := w.start(append(env, strings.Fields(os.Getenv("RELAY_BENCH_ENV"))...), "once", "--full", "--json")
		go r.watchMemory()
		if code := r.wait(b); code != exitOK {
			b.Fatalf("relay once ended with %d:\n%s", code, tail(r.stderr.String(), 4000))
		}
		all.add(r, r.summary(b), time.Since(begin))
		state := r.cmd.ProcessState
		all["user-µs/entry"] = append(all["user-µs/entry"], float64(state.UserTime().Microseconds())/float64(n))
		b.StopTimer()
		c := logs.Counts()
		all["calls"] = append(all["calls"], float64(c.Calls))
		file := strings.Contains(strings.Join(env, " "), "jsonl:")
		if !file && (c.Distinct != n || c.Repeats > 0) {
			b.Fatalf("%d of %d arrived, %d repeated", c.Distinct, n, c.Repeats)
		}
		b.StartTimer()
	}
}

// BenchmarkOnceLogs delivers to CloudWatch Logs: without delays, and with 20 ms a
// page and 20 ms a put, where Kong's pages are what takes the time.
func BenchmarkOnceLogs(b *testing.B) {
	b.Run("no delay", func(b *testing.B) { benchLogs(b, 100_000, 0, 0) })
	b.Run("no delay, OCSF", func(b *testing.B) { benchLogs(b, 100_000, 0, 0, "RELAY_EVENT_FORMAT=ocsf") })
	b.Run("20 ms", func(b *testing.B) { benchLogs(b, 50_000, 20*time.Millisecond, 20*time.Millisecond) })
}

// BenchmarkOnceFile delivers to a file.
func BenchmarkOnceFile(b *testing.B) {
	benchLogs(b, 100_000, 0, 0, "RELAY_DESTINATION=jsonl:"+b.TempDir()+"/audit.jsonl")
}

// BenchmarkInProcessLogs compares the pipeline with the plain loop over the same
// adapters, as BenchmarkInProcess does for CloudTrail Lake.
func BenchmarkInProcessLogs(b *testing.B) {
	const n = 50_000
	adapters := func(b *testing.B) (*kongadmin.Client, *cloudwatch.Destination, *redisledger.Ledger) {
		b.StopTimer()
		defer b.StartTimer()
		w, _ := newLogsWorld(b, kongtest.Options{SkipReads: true}, cloudwatchtest.Options{Lean: true})
		plain(n)(w.kong)
		source, err := kongadmin.New(kongadmin.Options{URL: w.kongURL, Token: func(context.Context, bool) (string, error) { return testToken, nil }})
		if err != nil {
			b.Fatal(err)
		}
		endpoint := w.get("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS")
		destination := cloudwatch.New(cloudwatch.Options{Group: cloudwatchtest.Group, Stream: "kong", Encode: cloudtrail.NewEncoder(w.kongURL, "", false), Config: aws.Config{
			Region: cloudwatchtest.Region, BaseEndpoint: &endpoint,
			Credentials: credentials.NewStaticCredentialsProvider(cloudwatchtest.AccessKeyID, cloudwatchtest.SecretAccessKey, "")}})
		store := redisledger.Open(redisconn.Options{Addrs: []string{w.redis.Addr}}, redisledger.Options{Source: "kong", Destination: "bench"})
		b.Cleanup(func() { store.Close() })
		return source, destination, store
	}
	b.Run("loop", func(b *testing.B) {
		for b.Loop() {
			source, destination, store := adapters(b)
			if err := plainLoop(b.Context(), source, destination, store); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
	b.Run("pipeline", func(b *testing.B) {
		for b.Loop() {
			source, destination, store := adapters(b)
			sum, err := pipeline.New(pipeline.Options{
				Source: source, Destination: destination, Ledger: store, Marks: store, Undelivered: store, OwnReads: store, Lease: keeperOf(store),
				BatchEntries: cloudwatch.BatchEntries, BatchBytes: cloudwatch.BatchBytes,
			}).Run(b.Context(), pipeline.Request{Kind: audit.Reconcile})
			if err != nil || sum.Delivered != n {
				b.Fatalf("%+v: %v", sum, err)
			}
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
}
