package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// hostileRows are entries that CloudWatch Logs does not take as they come: older than
// 14 days, a day ahead, many in a second, larger than its own limits.
func hostileRows(n int, now time.Time) []auditlog.Row {
	large := `{"config":"` + strings.Repeat(`\"é`, 75_000) + `"}`
	list := rows("h", n, func(i int) time.Time {
		switch i % 5 {
		case 0:
			return now.Add(-29*24*time.Hour + time.Duration(i)*time.Second)
		case 1:
			return now.Add(24*time.Hour + time.Duration(i%100)*time.Second)
		case 2:
			return now.Add(-2 * time.Hour) // all in one second
		case 3:
			return now.Add(-14*24*time.Hour + time.Duration(i)*time.Second) // about the limit
		}
		return now.Add(-time.Duration(i%40_000) * time.Minute)
	})
	for i := 7; i < n; i += 500 {
		list[i].Payload = &large
	}
	return list
}

// Nothing is lost of what is hard to deliver, and verify finds each event that is
// removed or doubled, whichever way Kong is read and whatever the format.
func TestVerifyLogs(t *testing.T) {
	t.Parallel()
	for i, tc := range orders {
		format := []string{"cloudtrail", "ocsf"}[i%2]
		t.Run(tc.name+" "+format, func(t *testing.T) {
			t.Parallel()
			tc.kong.SkipReads = true
			w, logs := newLogsWorld(t, tc.kong, cloudwatchtest.Options{
				ReadsPerSecond: 50, VisibleAfter: 2 * time.Second, Faults: cloudwatchtest.Faults{EmptyPages: 0.3, Reads: map[string]float64{"ThrottlingException": 0.1}},
			})
			w.env = append(w.env, "RELAY_EVENT_FORMAT="+format)
			n := 2500
			if *faultsLong {
				n = 50_000
			}
			list := hostileRows(n, time.Now())
			w.kong.Add(list...)
			if s := w.once(); s.Delivered != n || s.Dead > 0 {
				t.Fatalf("%+v", s)
			}
			// Nothing is visible yet: verify waits for it.
			r := w.verify(exitOK, "--grace", "10s")
			if d := r.Destination; r.Delivered != n || d.Confirmed != n || d.Repeated.Count+d.Unknown.Count+d.Gone+d.Unreadable > 0 || d.Name != "CloudWatch Logs" {
				t.Errorf("after a pass: %+v, %+v", r, r.Destination)
			}
			var removed, doubled []string
			for i := 0; i < n; i += n/30 | 1 {
				id := list[i].RequestID
				if i%2 == 0 {
					logs.Remove(id)
					removed = append(removed, id)
				} else {
					logs.Double(id)
					doubled = append(doubled, id)
				}
			}
			r = w.verify(exitDifference)
			expectIDs(t, "removed", r.Destination.Missing, removed...)
			expectIDs(t, "doubled", r.Destination.Repeated, doubled...)
			if d := r.Destination; d.Extra != len(doubled) || d.Confirmed != n-len(removed) {
				t.Errorf("%+v", d)
			}
			r = w.verify(exitOK, "--repair")
			if r.Repaired == nil || r.Repaired.Delivered != len(removed) || !r.Repaired.Repaired {
				t.Errorf("%+v", r.Repaired)
			}
			for _, id := range removed {
				if logs.Times(id) != 1 {
					t.Errorf("%s is there %d times", id, logs.Times(id))
				}
			}
			w.verify(exitOK, "--grace", "10s")
			w.verify(exitDifference, "--strict", "--grace", "10s")
		})
	}
}

// What is filed under another time than its own is found for a window as well.
func TestVerifyLogsWindow(t *testing.T) {
	t.Parallel()
	w, logs := newLogsWorld(t, kongtest.Options{SkipReads: true}, cloudwatchtest.Options{ReadsPerSecond: -1})
	now := time.Now().Truncate(time.Second)
	list := slices.Concat(
		rows("o", 200, func(i int) time.Time { return now.Add(-20*24*time.Hour + time.Duration(i)*time.Second) }),
		rows("a", 200, func(i int) time.Time { return now.Add(20*time.Hour + time.Duration(i)*time.Second) }),
		rows("p", 200, func(i int) time.Time { return now.Add(-10*time.Hour + time.Duration(i)*time.Second) }),
	)
	w.kong.Add(list...)
	w.once()
	second := func(at int64) string { return fmt.Sprint(at) }
	for from := 0; from < len(list); from += 200 {
		first, gone := list[from+50].RequestTimestamp, list[from+60].RequestID
		args := []string{"--since", second(first), "--until", second(first + 100)}
		if r := w.verify(exitOK, args...); r.Destination.Confirmed != 100 || r.Destination.Gone > 0 {
			t.Errorf("%s: %+v", list[from].RequestID, r.Destination)
		}
		logs.Remove(gone)
		expectIDs(t, "removed", w.verify(exitDifference, args...).Destination.Missing, gone)
		w.verify(exitOK, append(args, "--repair")...)
		if logs.Times(gone) != 1 {
			t.Errorf("%s is there %d times", gone, logs.Times(gone))
		}
	}
}

// verify stays within the quota of the readers by itself. A read that a busy machine delays
// may come together with the next one, but with no other, since each waits for the answer
// to the one before: hence the quota of one more.
func TestVerifyLogsQuota(t *testing.T) {
	t.Parallel()
	w, logs := newLogsWorld(t, kongtest.Options{SkipReads: true}, cloudwatchtest.Options{ReadsPerSecond: cloudwatchtest.ReadsPerSecond + 1})
	payload := fmt.Sprintf(`{"k":%q}`, strings.Repeat("v", 90_000))
	list := rows("q", 100, func(i int) time.Time { return time.Now().Add(-time.Hour + time.Duration(i)*time.Second) })
	for i := range list {
		list[i].Payload = &payload
	}
	w.kong.Add(list...)
	w.once()
	w.verify(exitOK)
	if c := logs.Counts(); c.Throttled > 0 || c.Reads < 8 {
		t.Errorf("%+v", c)
	}
}

// Who may not read the log group is told what to allow.
func TestVerifyLogsWithoutPermission(t *testing.T) {
	t.Parallel()
	w, logs := newLogsWorld(t, kongtest.Options{SkipReads: true}, cloudwatchtest.Options{})
	w.kong.Add(rows("a", 10, func(int) time.Time { return time.Now().Add(-time.Hour) })...)
	w.once()
	logs.SetFaults(cloudwatchtest.Faults{Reads: map[string]float64{"AccessDeniedException": 1}})
	_, stderr := w.says(exitFailed, "verify")
	contains(t, stderr, "logs:FilterLogEvents")
}

// BenchmarkVerifyLogs reports time, CPU and memory of verify over a million entries in
// CloudWatch Logs, at the readers' quota.
func BenchmarkVerifyLogs(b *testing.B) {
	const n = 1_000_000
	w, logs := newLogsWorld(b, kongtest.Options{SkipReads: true}, cloudwatchtest.Options{Digest: true})
	plain(n)(w.kong)
	run := func(args ...string) *relayRun {
		r := w.start(nil, args...)
		go r.watchMemory()
		<-r.waited // it takes minutes
		if code := r.cmd.ProcessState.ExitCode(); code != exitOK {
			b.Fatalf("%s ended with %d: %s %s", args[0], code, r.stdout.String(), r.stderr.String())
		}
		return r
	}
	run("once", "--full")
	for b.Loop() {
		r := run("verify", "--json")
		state := r.cmd.ProcessState
		b.ReportMetric(float64((state.UserTime()+state.SystemTime()).Microseconds())/n, "cpu-µs/entry")
		b.ReportMetric(float64(r.peak.Load())/(1<<20), "peak-MiB")
		b.ReportMetric(float64(logs.Counts().Reads), "reads")
	}
}
