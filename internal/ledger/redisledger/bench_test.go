package redisledger

import (
	"errors"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger/ledgertest"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// TestMemory measures what an entry costs a server, as the difference of used_memory.
func TestMemory(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	const monday = 1767571200 // 2026-01-05, a Monday
	const days = 29
	office := func(perHour, days int) (times []int64) {
		for day := range days {
			for hour := 9; hour < 17 && day%7 < 5; hour++ {
				for i := range perHour {
					times = append(times, monday+int64(day)*86400+int64(hour)*3600+int64(i*3600/perHour))
				}
			}
		}
		return times
	}
	even := func(perHour, days int) (times []int64) {
		for i := range perHour * 24 * days {
			times = append(times, monday+int64(i)*3600/int64(perHour))
		}
		return times
	}
	for _, c := range []struct {
		name  string
		times []int64
	}{
		// 300,000 in 29 days. A day has keys of its own, so that a few days cost what all do.
		{"430 an hour evenly", even(430, 4)},
		{"1800 an hour in office hours", office(1800, 4)},
		{"20 an hour evenly", even(20, days)},
		{"20 an hour in office hours", office(20, days)},
		{"25 an hour evenly", even(25, days)},
		{"70 an hour in office hours", office(70, days)},
		{"100 an hour evenly", even(100, days)},
		{"all of one second", make([]int64, 100_000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			c2 := plainClient(t, s)
			memory := func() int { // bytes, without the buffers of connections
				info, err := c2.Info(bg(), "memory").Result()
				if err != nil {
					t.Fatal(err)
				}
				sum := 0
				for line := range strings.Lines(info) {
					name, v, _ := strings.Cut(strings.TrimSpace(line), ":")
					if name != "used_memory" && name != "mem_clients_normal" {
						continue
					}
					n, err := strconv.Atoi(v)
					if err != nil {
						t.Fatal(err)
					}
					if name == "used_memory" {
						sum += n
					} else {
						sum -= n
					}
				}
				return sum
			}
			// The server counts the buffers of connections from time to time only, and lets go of
			// a connection some time after its end.
			used := func() (last int) {
				same := 0
				eventually(t, func() error {
					if now := memory(); now != last {
						last, same = now, 0
					}
					if same++; same < 30 {
						return errors.New("memory changes")
					}
					return nil
				})
				return last
			}
			// The log of slow calls takes about 3 kB a call, and on a busy machine many are slow.
			slowCalls := func() []redis.SlowLog {
				calls := value(c2.SlowLogGet(bg(), 100).Result())(t)
				must(t, c2.SlowLogReset(bg()).Err())
				return calls
			}
			// What a first use costs whatever the number of entries (scripts, buffers) is told apart.
			empty := used()
			warm := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}})
			if err := warm.Begin(bg()); err != nil {
				t.Fatal(err)
			}
			if _, err := warm.Lookup(bg(), []audit.Entry{{ID: ledgertest.ID(1)}}); err != nil {
				t.Fatal(err)
			}
			if err := warm.Record(bg(), []audit.Record{{ID: ledgertest.ID(1), Outcome: audit.Delivered}}); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(c2.FlushAll(bg()).Err(), warm.Close()); err != nil {
				t.Fatal(err)
			}
			slowCalls()
			before := used()
			r := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}})
			if err := r.Begin(bg()); err != nil {
				t.Fatal(err)
			}
			var batch []audit.Record
			for i, ts := range c.times {
				batch = append(batch, audit.Record{ID: ledgertest.ID(i), Timestamp: ts, Retention: 30 * 24 * time.Hour, Outcome: audit.Delivered})
				if len(batch) == 1000 || i == len(c.times)-1 {
					if err := r.Record(bg(), batch); err != nil {
						t.Fatal(err)
					}
					batch = batch[:0]
				}
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			slow := slowCalls()
			each := float64(used()-before) / float64(len(c.times))
			var longest time.Duration
			for _, entry := range slow {
				if strings.EqualFold(entry.Args[0], "evalsha") {
					longest = max(longest, entry.Duration)
				}
			}
			t.Logf("%d entries: %.1f bytes each, and %d once; longest call %v (0s: under 10 ms)", len(c.times), each, before-empty, longest)
			if each > 50 {
				t.Errorf("%.1f bytes an entry, more than 50", each)
			}
		})
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRedis reports time and the client's CPU for an entry of a page of 1000.
func BenchmarkRedis(b *testing.B) {
	if !redistest.Real() {
		b.Fatal("needs a redis-server")
	}
	for _, c := range []struct {
		name string
		days int
	}{{"in order", 1}, {"without order", 29}} {
		b.Run(c.name, func(b *testing.B) {
			s := redistest.Start(b)
			plain := plainClient(b, s)
			served := func() float64 { // seconds of CPU that the server has used
				info, err := plain.Info(bg(), "cpu").Result()
				if err != nil {
					b.Fatal(err)
				}
				sum := 0.0
				for line := range strings.Lines(info) {
					name, v, _ := strings.Cut(strings.TrimSpace(line), ":")
					if name == "used_cpu_sys" || name == "used_cpu_user" {
						n, err := strconv.ParseFloat(v, 64)
						if err != nil {
							b.Fatal(err)
						}
						sum += n
					}
				}
				return sum
			}
			r := openRedis(b, redisconn.Options{Addrs: []string{s.Addr}})
			if err := r.Begin(bg()); err != nil {
				b.Fatal(err)
			}
			pages := make([][]audit.Entry, 300)
			records := make([][]audit.Record, len(pages))
			for p := range pages {
				for i := range 1000 {
					n := p*1000 + i
					ts := int64(1767571200 + n*8)
					if c.days > 1 {
						ts = int64(1767571200 + (n*7919%300_000)*8)
					}
					pages[p] = append(pages[p], audit.Entry{ID: ledgertest.ID(n), Timestamp: ts})
					records[p] = append(records[p], audit.Record{ID: ledgertest.ID(n), Timestamp: ts, Retention: 720 * time.Hour, Outcome: audit.Delivered})
				}
			}
			run := func(name string, f func(p int) error) {
				b.Run(name, func(b *testing.B) {
					b.ReportAllocs()
					runtime.GC()
					before, servedBefore := cpu(b), served()
					n := 0
					for b.Loop() {
						if err := f(n % len(pages)); err != nil {
							b.Fatal(err)
						}
						n++
					}
					b.ReportMetric((served()-servedBefore)*1e9/float64(n*1000), "server-cpu-ns/entry")
					b.ReportMetric(float64(cpu(b)-before)/float64(n*1000), "cpu-ns/entry")
					b.ReportMetric(float64(b.Elapsed())/float64(n*1000), "ns/entry")
				})
			}
			run("record", func(p int) error { return r.Record(bg(), records[p]) })
			run("lookup", func(p int) error { _, err := r.Lookup(bg(), pages[p]); return err })
		})
	}
}
