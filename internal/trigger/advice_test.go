package trigger

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestAdvice sends triggers to whatever may be at an address, and reads what a person is told to do.
func TestAdvice(t *testing.T) {
	answers := func(status int) string {
		return serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	}
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tls.Close)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	hangsUp := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	says := func(answer string) string {
		return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // what is left of it would reset the connection
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}))
	}
	for _, c := range []struct{ name, url, secret, says, advice string }{
		{"Redis", says("-ERR unknown command 'POST'\r\n"), secretA, "malformed HTTP", "does not speak HTTP"},
		{"TLS alert", says("\x15\x03\x01\x00\x02\x02\x46"), secretA, "malformed HTTP", "https://"},
		{"another secret", serve(t, newRelay(Options{})), secretB, "401", "RELAY_TRIGGER_SECRET"},
		{"another listener", answers(404), secretA, "404", "not of --ops-listen"},
		{"only GET", answers(405), secretA, "405", "--listen"},
		{"a firewall", answers(403), secretA, "403", "firewall"},
		{"bad request", answers(400), secretA, "400", "https://"},
		{"moved", answers(301), secretA, "301", "--listen"},
		{"too many", answers(429), secretA, "429", "--trigger-rate"},
		{"ledger", answers(503), secretA, "503", "relay status"},
		{"nothing behind", answers(502), secretA, "502", "in front of the relay"},
		{"broken", answers(500), secretA, "500", "log"},
		{"nobody", "http://127.0.0.1:1", secretA, "connection refused", "--listen"},
		{"no name", "http://relay.invalid:8080", secretA, "relay.invalid", "name"},
		{"no answer", "http://" + silent.Addr().String(), secretA, "", "firewalls"},
		{"hangs up", hangsUp, secretA, "EOF", "closes the connection"},
		{"unknown authority", tls.URL, secretA, "certificate", "ca_cert"},
		{"TLS to plain", strings.Replace(answers(202), "http:", "https:", 1), secretA, "HTTP", "http://"},
		{"plain to TLS", strings.Replace(tls.URL, "https:", "http:", 1), secretA, "400", "https://"},
	} {
		within := time.Minute // for a busy machine
		if c.name == "no answer" {
			within = 500 * time.Millisecond
		}
		client, err := NewClient(ClientOptions{URL: c.url, Secret: c.secret, Delivery: Delivery{Timeout: within, Retries: -1}})
		if err != nil {
			t.Fatal(err)
		}
		err = client.Notify(t.Context(), nil)
		client.Close()
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(Advice(err), c.advice) {
			t.Errorf("%s: %v; advice %q, want %q", c.name, err, Advice(err), c.advice)
		}
	}
}
