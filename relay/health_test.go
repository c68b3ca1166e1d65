package main

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestHealthCommand asks a relay that is alive and not ready.
func TestHealthCommand(t *testing.T) {
	relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(relay.Close)
	address := strings.TrimPrefix(relay.URL, "http://")
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		code int
		want string // of stderr
	}{
		{"alive", nil, map[string]string{"RELAY_OPS_LISTEN": address}, exitOK, ""},
		{"not ready", []string{"--ready"}, map[string]string{"RELAY_OPS_LISTEN": address}, exitFailed, "answers /readyz with 503"},
		{"on every address", nil, map[string]string{"RELAY_OPS_LISTEN": "0.0.0.0:" + port}, exitOK, ""},
		{"on every address of IPv6 too", nil, map[string]string{"RELAY_OPS_LISTEN": "[::]:" + port}, exitOK, ""},
		{"flag goes first", []string{"--ops-listen", address}, map[string]string{"RELAY_OPS_LISTEN": "off"}, exitOK, ""},
		{"other settings do not matter", nil, map[string]string{"RELAY_OPS_LISTEN": address, "REDIS_DB": "none"}, exitOK, ""},
		{"gone", nil, map[string]string{"RELAY_OPS_LISTEN": "127.0.0.1:1"}, exitFailed, "asking for health"},
		{"of another", nil, map[string]string{"RELAY_OPS_LISTEN": answering(t, "-ERR wrong number of arguments for 'get' command\r\n")}, exitFailed, "does not speak HTTP"},
		{"of a relay that ends, or of another", nil, map[string]string{"RELAY_OPS_LISTEN": answering(t, "")}, exitFailed, "unless the relay is just ending"},
		{"off", nil, map[string]string{"RELAY_OPS_LISTEN": "off"}, exitUsage, "nothing to ask"},
		{"no address", nil, map[string]string{"RELAY_OPS_LISTEN": "9090"}, exitUsage, "expected host:port or off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), nil, append([]string{"relay", "health"}, c.args...), &stdout, &stderr)
			if code != c.code || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("exit code %d, want %d:\n%s", code, c.code, stderr.String())
			}
		})
	}
}
