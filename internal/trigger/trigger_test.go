package trigger

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

func TestLoopback(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:8080": true, "127.8.9.1:0": true, "[::1]:8080": true, "localhost:8080": true, "LOCALHOST:1": true,
		"[::ffff:127.0.0.1]:1": true,
		":8080":                false, "0.0.0.0:8080": false, "[::]:8080": false, "10.0.0.1:80": false, "relay:8080": false,
		"127.0.0.1": false, "": false, "localhost.example.com:80": false, "127.0.0.1.example.com:80": false,
	} {
		if got := Loopback(addr); got != want {
			t.Errorf("%q: %v", addr, got)
		}
	}
}

func TestCheckSecret(t *testing.T) {
	for secret, ok := range map[string]bool{
		secretA: true, secretB: true,
		"": false, "whsec_": false, "whsec_hidden": false, "whsec_aGlkZGVu": false, strings.TrimPrefix(secretA, "whsec_"): false,
		"whsec_" + strings.Repeat("QUJD", 22): false,
	} {
		err := CheckSecret(secret)
		if (err == nil) != ok {
			t.Errorf("%q: %v", secret, err)
		}
		if err != nil && len(secret) > len("whsec_") && strings.Contains(err.Error(), strings.TrimPrefix(secret, "whsec_")) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func TestParseInvocation(t *testing.T) {
	b, err := ParseInvocation([]byte(`{"trigger":{"request_ids":["a","b"],"sent_at":"2026-01-02T03:04:05Z"}}`))
	if err != nil || !slices.Equal(b.RequestIDs, []string{"a", "b"}) || b.SentAt.Unix() != 1767323045 {
		t.Errorf("%+v %v", b, err)
	}
	for _, payload := range []string{
		``, `null`, `{}`, `{"trigger":null}`, `{"trigger":{"request_ids":["-"]}}`, `{"schedule":true}`,
		`{"trigger":{}}{}`, `{"trigger":{},"more":1}`, `{"trigger":{"request_ids":["` + strings.Repeat(`a","`, MaxBody) + `"]}}`,
	} {
		if b, err := ParseInvocation([]byte(payload)); err == nil {
			t.Errorf("%.40s: %+v", payload, b)
		}
	}
}

// What fits is what the handler takes, to the last byte.
func TestFit(t *testing.T) {
	for _, length := range []int{1, 32, 64} {
		ids := make([]string, 40_000)
		for i := range ids {
			ids[i] = strings.Repeat("a", length)
		}
		n := Fit(ids)
		b := newBody(ids[:n])
		data, err := json.Marshal(Invocation{Trigger: &b})
		if err != nil || len(data) > MaxBody || len(data) < MaxBody-envelope-length {
			t.Errorf("%d ids of %d bytes make %d bytes", n, length, len(data))
		}
	}
	if n := Fit(nil); n != 0 {
		t.Errorf("%d of none", n)
	}
}
