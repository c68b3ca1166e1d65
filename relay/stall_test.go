package main

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// vitals is what a relay shows to who watches over it.
type vitals struct {
	alive, ready           bool
	reason, hint           string
	degraded               int
	oldest, complete, fail float64 // seconds ago, seconds ago, passes
}

// look asks a relay's operations listener; false if it does not answer.
func look(tb testing.TB, ops string) (v vitals, ok bool) {
	tb.Helper()
	get := func(path string) (status int, body []byte) {
		resp, err := http.Get(ops + path)
		if err != nil {
			return 0, nil
		}
		defer resp.Body.Close()
		if body, err = io.ReadAll(resp.Body); err != nil {
			return 0, nil
		}
		return resp.StatusCode, body
	}
	status, _ := get("/healthz")
	v.alive = status == http.StatusOK
	status, body := get("/readyz")
	v.ready = status == http.StatusOK
	var answer struct {
		Reason, Hint string
		Degraded     []jsontext.Value
	}
	if decode(body, &answer) != nil {
		return v, false
	}
	v.reason, v.hint, v.degraded = answer.Reason, answer.Hint, len(answer.Degraded)
	_, body = get("/metrics")
	found := 0
	for line := range strings.Lines(string(body)) {
		for name, field := range map[string]*float64{
			"oldest_undelivered_timestamp_seconds": &v.oldest, "last_complete_pass_timestamp_seconds": &v.complete, "passes_failed_in_a_row": &v.fail,
		} {
			if text, is := strings.CutPrefix(line, "kong_cloudtrail_relay_"+name+" "); is {
				n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
				if err != nil {
					tb.Fatal(err)
				}
				if strings.HasSuffix(name, "timestamp_seconds") && n > 0 {
					n = float64(time.Now().UnixMilli())/1000 - n
				}
				*field = n
				found++
			}
		}
	}
	return v, found == 3
}

// A relay that is alive and moves nothing says so, also one that was started in
// the middle of it, and says when it is over.
func TestStalls(t *testing.T) {
	t.Parallel()
	const behind = time.Hour // Kong's clock, so that what its marks say cannot be this process's own age
	for _, tc := range []struct {
		name        string
		begin, over func(w *world)
		blind       bool // what waits cannot be known
		hint        bool
		redis       bool
	}{
		{
			name: "settings", hint: true,
			begin: func(w *world) {
				w.trail.SetFaults(cloudtrailtest.Faults{Calls: map[string]float64{"ChannelNotFound": 1}})
			},
			over: func(w *world) { w.trail.SetFaults(cloudtrailtest.Faults{}) },
		},
		{
			name:  "destination down",
			begin: func(w *world) { w.trail.SetDown(true) },
			over:  func(w *world) { w.trail.SetDown(false) },
		},
		{
			name: "ledger down", blind: true, redis: true,
			begin: func(w *world) { w.redis.Kill() },
			over:  func(w *world) { w.redis.Restart() },
		},
	} {
		if tc.redis && !redistest.Real() {
			t.Logf("%s: needs a redis-server", tc.name)
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			clock := func() time.Time { return time.Now().Add(-behind) }
			w := newWorldOn(t, redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always"),
				kongtest.Options{SkipReads: true, Now: clock}, cloudtrailtest.Options{})
			w.env = append(w.env, "RELAY_RETRY_FOR=1s")
			var v vitals
			expect := func(ops, what string, ok func() bool) {
				t.Helper()
				defer func() {
					if t.Failed() {
						t.Logf("%+v", v)
					}
				}()
				eventually(t, patient, what, func() bool {
					var answered bool
					v, answered = look(t, ops)
					return answered && v.alive && ok()
				})
			}
			healthy := func() bool { return v.ready && v.degraded == 0 && v.fail == 0 && v.oldest == 0 && v.complete < 60 }
			restarted := false
			stalled := func() bool {
				return v.ready != restarted && v.degraded > 0 && v.reason != "" && v.fail >= 1 && (tc.blind || v.oldest >= behind.Seconds()) && (!tc.hint || v.hint != "")
			}

			w.kong.Add(rows("a", 50, func(int) time.Time { return clock() })...)
			r, url, ops := w.serve()
			expect(ops, "healthy", healthy)
			tc.begin(w)
			w.kong.Add(rows("b", 20, func(int) time.Time { return clock() })...)
			if !tc.blind {
				notifyOnce(t, url)
				expect(ops, "stalled", stalled)
			}
			if err := r.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			r.wait(t)
			restarted = true // it has not reached everything once
			_, _, ops = w.serve()
			expect(ops, "still stalled after a restart", func() bool {
				return stalled() && (tc.blind || v.complete >= behind.Seconds())
			})
			tc.over(w)
			expect(ops, "healthy again", healthy)
			w.expectAll(0)
		})
	}
}
