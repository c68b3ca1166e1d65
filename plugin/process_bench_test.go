package main_test

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What an event costs beside one that a handler without a line in it gets.
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
