package main_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// While events come, Kong waits for the plugin once an event. It reads in an event
// loop, so each time costs it a turn: with the six writes that go-pdk's StartServer
// makes for one question, Kong answers a fifth fewer requests at 16 connections
// than with a handler that does nothing.
func TestEventWaitsOnce(t *testing.T) {
	for name, config := range map[string]map[string]any{
		"all":      nil,
		"filtered": {"methods": []string{"POST"}, "ignore_paths": []string{"^/status"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
			c := r.config(map[string]any{"min_interval_ms": 60_000})
			maps.Copy(c, config)
			i := instance(t, h, c)
			logEvent(t, h, i, answered("first"))
			r.wait(t, 1, 1)
			const events = 1000
			before := h.Waits()
			for range events {
				logEvent(t, h, i, answered("more"))
			}
			if n := h.Waits() - before; n != events {
				t.Errorf("%d waits for %d events", n, events)
			}
		})
	}
}

// BenchmarkEvent compares an event with one that an empty handler on go-pdk's
// StartServer gets.
func BenchmarkEvent(b *testing.B) {
	for _, name := range []string{"empty", "cloudtrail-relay"} {
		for _, parallel := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/connections=%d", name, parallel), func(b *testing.B) {
				r, h := newRelay(b), startPlugin(b, name)
				i := instance(b, h, r.config(nil))
				var next, workers = make(chan struct{}), sync.WaitGroup{}
				for range parallel {
					workers.Go(func() {
						for range next {
							logEvent(b, h, i, answered("8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK"))
						}
					})
				}
				before := cpu(b, h.PID())
				b.ResetTimer()
				for range b.N {
					next <- struct{}{}
				}
				close(next)
				workers.Wait()
				// Time on the clock depends on what else runs; this does not.
				b.ReportMetric(float64((cpu(b, h.PID())-before).Nanoseconds())/float64(b.N), "plugin-cpu-ns/op")
			})
		}
	}
}

// cpu is the processor time that a process has used, from /proc: in ticks of 10 ms.
func cpu(t testing.TB, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	ticks := 0
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks*10) * time.Millisecond
}
