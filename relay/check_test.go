package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// TestCheckTrigger tries the way from Kong to a relay that serves, and one that is broken.
func TestCheckTrigger(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	const secret = "RELAY_TRIGGER_SECRET=whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	_, relay, ops := w.serve(secret)
	check := func(want int, env []string, relay string) string {
		t.Helper()
		if !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "KONG_ADMIN_API=") }) {
			env = append([]string{"KONG_ADMIN_API=" + w.kongURL, "KONG_SUPERADMIN=true", "KONG_ADMIN_TOKEN=" + testToken}, env...)
		}
		out, code := process(t, env, "check", "--trigger", relay) // without the settings of ledger and destination
		if code != want {
			t.Errorf("check ended with %d, want %d:\n%s", code, want, out)
		}
		return out
	}
	// The emulator answers GET /plugins as a Kong without plugins does, or not at all: neither is a failure.
	out := check(0, []string{secret}, relay)
	if !strings.Contains(out, "ok      trigger      the relay accepted a signed trigger (202)") || !strings.Contains(out, "hint    plugin") {
		t.Error(out)
	}
	eventually(t, patient, "the trigger is counted", func() bool { return metric(t, ops, `triggers_total{outcome="accepted",path="/v1/trigger"}`) == "1" })
	out = check(1, []string{"RELAY_TRIGGER_SECRET=whsec_MTEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}, relay)
	if !strings.Contains(out, "FAILED  trigger      triggering the relay: refused with 401") || !strings.Contains(out, "What to do: use the relay's secret") {
		t.Error(out)
	}
	out = check(1, []string{secret}, ops)
	if !strings.Contains(out, "refused with 4") || !strings.Contains(out, "not of --ops-listen") {
		t.Error(out)
	}
	if out = check(1, nil, "http://relay.invalid:8080"); !strings.Contains(out, "a secret is needed") || !strings.Contains(out, "RELAY_TRIGGER_SECRET") {
		t.Error(out)
	}

	// A Kong that has the plugin, and refuses to say so.
	kong := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/plugins":
			_, _ = rw.Write([]byte(`{"data":[],"next":null}`))
		case r.Header.Get("Kong-Admin-Token") != testToken:
			rw.WriteHeader(http.StatusForbidden)
		default:
			_, _ = rw.Write([]byte(`{"data":[{"name":"cloudtrail-relay","enabled":true,"config":{"relay_url":"http://relay:8080"}}],"next":null}`))
		}
	}))
	defer kong.Close()
	other := []string{secret, "KONG_ADMIN_API=" + kong.URL, "KONG_SUPERADMIN=true", "KONG_ADMIN_TOKEN=" + testToken}
	if out = check(0, other, relay); !strings.Contains(out, "hint    plugin       in Kong, cloudtrail-relay sends to http://relay:8080") {
		t.Error(out)
	}
	if out = check(0, append(other, "KONG_ADMIN_TOKEN=another"), relay); !strings.Contains(out, "which the relay need not be allowed: ") || !strings.Contains(out, "403 Forbidden") {
		t.Error(out)
	}
	if out = check(0, []string{secret, "KONG_ADMIN_API="}, relay); !strings.Contains(out, "KONG_ADMIN_API is not set") {
		t.Error(out)
	}
}
