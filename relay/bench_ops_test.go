package main

import (
	"io"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkAsked is what 10,000 scrapes and 10,000 page loads cost, spread over a full
// pass of 200,000 entries without a network's delays: as a share of what the pass costs
// by itself, of the relay's processor time and of the clock.
func BenchmarkAsked(b *testing.B) {
	const entries, pairs = 200_000, 10_000
	var alone, asked passCost
	requests := 0
	for b.Loop() {
		one := servedPass(b, entries, 0)
		two := servedPass(b, entries, one.wall*9/10/pairs)
		alone.add(one)
		asked.add(two)
		requests += two.requests
	}
	extra := asked.cpu - alone.cpu
	b.ReportMetric(100*float64(extra)/float64(alone.cpu), "%-more-cpu")
	b.ReportMetric(100*(float64(asked.wall)/float64(alone.wall)-1), "%-longer")
	b.ReportMetric(float64(extra.Microseconds())/float64(requests), "cpu-µs/request")
	b.ReportMetric(float64(requests)/float64(b.N), "requests")
	b.ReportMetric(float64(entries*b.N)/alone.wall.Seconds(), "entries/s")
	b.ReportMetric(alone.cpu.Seconds()/float64(b.N), "cpu-s")
}

// passCost is what a relay cost that made one full pass.
type passCost struct {
	cpu, wall time.Duration
	requests  int
}

func (c *passCost) add(o passCost) {
	c.cpu, c.wall = c.cpu+o.cpu, c.wall+o.wall
}

// servedPass runs relay serve over a log until all of it is delivered. Meanwhile the
// metrics and the page are asked for, one of each in every interval; none if it is 0.
func servedPass(b *testing.B, entries int, interval time.Duration) (c passCost) {
	kong, trail := lean()
	w := newWorld(b, kong, trail)
	plain(entries)(w.kong)
	begin := time.Now()
	r, _, ops := w.serve("RELAY_PUT_RATE=10000")
	done := make(chan struct{})
	var asking sync.WaitGroup
	if interval > 0 {
		const clients = 4 // of a scraper and of people, each with its connection
		counts := make([]int, clients)
		for i := range clients {
			asking.Go(func() {
				client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
				defer client.CloseIdleConnections()
				tick := time.NewTicker(interval * clients)
				defer tick.Stop()
				for {
					select {
					case <-done:
						return
					case <-tick.C:
					}
					for _, path := range []string{"/metrics", "/"} {
						resp, err := client.Get(ops + path)
						if err != nil {
							b.Error(err)
							return
						}
						_, _ = io.Copy(io.Discard, resp.Body)
						_ = resp.Body.Close()
						counts[i]++
					}
				}
			})
		}
		defer func() {
			for _, n := range counts {
				c.requests += n
			}
		}()
	}
	eventually(b, 5*time.Minute, "everything delivered", func() bool { return w.trail.Counts().Events >= entries })
	c.wall = time.Since(begin)
	close(done)
	asking.Wait()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.Fatal(err)
	}
	if code := r.wait(b); code != 0 {
		b.Fatalf("relay serve ended with %d:\n%s", code, tail(r.stderr.String(), 4000))
	}
	c.cpu = r.cmd.ProcessState.UserTime() + r.cmd.ProcessState.SystemTime()
	return c
}
