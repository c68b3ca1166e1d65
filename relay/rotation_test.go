package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// TestTriggerSecretRotatedAtOnce replaces the secrets of triggers, without a time in
// which both are good: the first trigger with a new one is accepted, and none with the
// old one from then on.
func TestTriggerSecretRotatedAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const first = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	const second = "whsec_MTEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	_, url, _ := w.serve("RELAY_TRIGGER_SECRET_FILE="+write("trigger", first), "RELAY_HTTP_LOG_SECRET_FILE="+write("log", "one"), "RELAY_SECRET_REFRESH=1h")
	notify := func(secret string) int {
		t.Helper()
		c, err := trigger.NewClient(trigger.ClientOptions{URL: url, Secret: secret, Delivery: trigger.Delivery{Retries: -1, Timeout: patient}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = c.Notify(t.Context(), nil)
		var answer *trigger.AnswerError
		switch {
		case errors.As(err, &answer):
			return answer.Status
		case err != nil:
			t.Fatal(err)
		}
		return http.StatusAccepted
	}
	httpLog := func(password string) int {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, url+trigger.HTTPLogPath, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("kong", password)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	expect := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	expect("the secret", notify(first), 202)
	expect("the password", httpLog("one"), 202)
	// Reading again is bounded to once in five seconds, from the last reading on.
	write("trigger", second)
	write("log", "two")
	eventually(t, patient, "the new secret is good", func() bool { return notify(second) == 202 })
	eventually(t, patient, "the new password is good", func() bool { return httpLog("two") == 202 })
	expect("the old secret", notify(first), 401)
	expect("the old password", httpLog("one"), 401)
	// A file that is gone takes nothing away from what is known, however many guess.
	if err := errors.Join(os.Remove(filepath.Join(dir, "trigger")), os.Remove(filepath.Join(dir, "log"))); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		expect("a guess", notify(first), 401)
		expect("the secret whose file is gone", notify(second), 202)
		expect("the password whose file is gone", httpLog("two"), 202)
	}
}
