package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// A destination that goes down under a relay that runs is named within seconds, once,
// by log, status, page, metric and command, and its end is said and kept.
func TestOutageIsNamedAndKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.Add(rows("a", 20, func(int) time.Time { return time.Now() })...)
	r, url, ops := w.serve("RELAY_EMF=true")
	address := strings.TrimPrefix(ops, "http://")
	w.env = append(w.env, "RELAY_OPS_LISTEN="+address)
	eventually(t, patient, "the first pass", func() bool { return metric(t, ops, `passes_total{kind="reconcile",outcome="complete"}`) == "1" })
	eventually(t, patient, "the verdict", func() bool {
		_, text := fetchOps(t, ops+"/status")
		return strings.Contains(text, "all that Kong recorded up to")
	})
	out, _ := w.says(exitOK, "status")
	contains(t, out, "All that Kong recorded up to", "the running relay", w.kongURL, cloudtrailtest.ChannelARN)

	w.trail.SetDown(true)
	w.kong.Add(rows("b", 5, func(int) time.Time { return time.Now() })...)
	notifyOnce(t, url)
	const up = `dependency_up{dependency="destination"}`
	eventually(t, patient, "the metric", func() bool { return metric(t, ops, up) == "0" })
	var status struct {
		Failing       bool
		Verdict, Hint string
	}
	_, text := fetchOps(t, ops+"/status")
	if err := decode([]byte(text), &status); err != nil || !status.Failing || !strings.Contains(status.Verdict, "destination has been failing since") || status.Hint == "" {
		t.Errorf("%v: %s", err, text)
	}
	header, page := fetchOps(t, ops+"/")
	contains(t, page, "Destination has been failing since", "What to do")
	if len(page) > 60_000 || strings.Contains(page, "http://www") || strings.Contains(page, " src=") {
		t.Errorf("%d bytes, or something from elsewhere:\n%s", len(page), page)
	}
	for _, secret := range []string{testToken, cloudtrailtest.SecretAccessKey, cloudtrailtest.AccessKeyID} {
		if strings.Contains(page+text, secret) {
			t.Error("a secret is shown")
		}
	}
	contains(t, header.Get("Content-Security-Policy"), "default-src 'none'", "connect-src 'self'")
	out, _ = w.says(exitFailed, "status")
	contains(t, out, "Destination has been failing since", "What to do: ")
	v, _ := look(t, ops)
	if !v.ready || v.degraded == 0 {
		t.Errorf("degraded and still in service: %+v", v)
	}

	w.trail.SetDown(false)
	eventually(t, patient, "the end", func() bool {
		return metric(t, ops, up) == "1" && metric(t, ops, "oldest_undelivered_timestamp_seconds") == "0"
	})
	w.says(exitOK, "status")
	eventually(t, patient, "the record of the outage", func() bool {
		out, _ := w.says(exitOK, "outages", "--csv")
		lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(out), "\n"), func(line string) bool { return !strings.HasPrefix(line, "destination,") })
		return len(lines) == 1 && strings.Contains(lines[0], ",5,")
	})
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait(t)
	log := r.stderr.String()
	// On a busy machine another dependency may be said not to answer.
	const destination = `"dependency":"destination"`
	for text, want := range map[string]struct {
		dependency string
		times      int
	}{
		"relay starts": {"", 1}, "dependency is failing": {destination, 1}, "dependency works again": {destination, 1},
		"everything from an outage is delivered": {destination, 1}, `"level":"ERROR"`: {"", 0},
	} {
		n := 0
		for line := range strings.Lines(log) {
			if strings.Contains(line, text) && strings.Contains(line, want.dependency) {
				n++
			}
		}
		if n != want.times {
			t.Errorf("%q %d times in the log, want %d:\n%s", text, n, want.times, log)
		}
	}
	contains(t, r.stdout.String(), `"Namespace":"KongCloudTrailRelay"`, `"LastCompletePassAge"`, `"OldestUndeliveredAge"`, `"DeadLetters"`, `"Deferred"`, `"PassFailures"`, `"EntriesDelivered"`)
	w.expectAll(100)
}
