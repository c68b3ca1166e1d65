package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// eventually waits for a condition.
func eventually(tb testing.TB, within time.Duration, what string, ok func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tb.Fatalf("%s: not within %s", what, within)
		}
	}
}

const patient = 2 * time.Minute // for a busy machine

func contains(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, s := range want {
		if !strings.Contains(text, s) {
			t.Errorf("%q is not in:\n%s", s, text)
		}
	}
}

// metric returns the value of a line of /metrics.
func metric(tb testing.TB, ops, name string) string {
	tb.Helper()
	_, text := fetchOps(tb, ops+"/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "kong_cloudtrail_relay_"+name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fetchOps gets a path of a relay's operations listener.
func fetchOps(tb testing.TB, url string) (http.Header, string) {
	tb.Helper()
	resp, err := http.Get(url)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return resp.Header, string(text)
}

// notifyOnce sends a trigger.
func notifyOnce(tb testing.TB, url string, ids ...string) {
	tb.Helper()
	c, err := trigger.NewClient(trigger.ClientOptions{URL: url, Delivery: trigger.Delivery{Timeout: patient}})
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	if err := c.Notify(context.Background(), ids); err != nil {
		tb.Fatal(err)
	}
}

// adminRequest makes a request to the emulated Admin API and returns its id.
func adminRequest(tb testing.TB, w *world) string {
	tb.Helper()
	req, err := http.NewRequest(http.MethodPost, w.get("KONG_ADMIN_API")+"/services", bytes.NewReader([]byte(`{"name":"x"}`)))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Kong-Admin-Token", testToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Header.Get("X-Kong-Admin-Request-ID")
}
