package kongadmin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/certtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// through makes a client use a proxy whatever the environment says.
func through(t testing.TB, c *Client, proxy string) {
	t.Helper()
	u, err := url.Parse(proxy)
	if err != nil {
		t.Fatal(err)
	}
	c.proxy = http.ProxyURL(u)
}

// A proxy that does not let the relay through is named, and Kong is not blamed.
func TestProxyRefuses(t *testing.T) {
	for _, c := range []struct {
		status int
		person bool
		hint   string
	}{
		{401, true, "let the proxy connect to kong.internal:8444"},
		{403, true, "let the proxy connect to kong.internal:8444"},
		{404, true, "let the proxy connect"},
		{407, true, "user and password in HTTPS_PROXY"},
		{502, false, "check the proxy"},
		{503, false, "check the proxy"},
	} {
		var leaked atomic.Bool
		proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get(tokenHeader) != "" {
				leaked.Store(true)
			}
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(c.status)
			say(w, "<title>Squid says no</title>")
		})
		address := strings.Replace(proxy.URL, "//", "//relay:pr0xy-secret@", 1)

		rotated := false
		client := newClient(t, Options{URL: "https://kong.internal:8444", Retries: 1, Token: func(_ context.Context, fresh bool) (string, error) {
			rotated = rotated || fresh
			return secret, nil
		}})
		through(t, client, address)
		err := refused(t, client, all)
		if rotated || errors.Is(err, audit.ErrNoAuditLog) {
			t.Errorf("%d: the answer was taken for Kong's: %v", c.status, err)
		}
		if !strings.Contains(err.Error(), proxy.Listener.Addr().String()) || strings.Contains(err.Error(), "pr0xy-secret") {
			t.Errorf("%d: %v", c.status, err)
		}
		if h := audit.Hint(err); audit.NeedsPerson(err) != c.person || !strings.Contains(h, c.hint) || !strings.Contains(h, "add kong.internal to NO_PROXY") {
			t.Errorf("%d: hint %q", c.status, h)
		}

		// Without TLS the proxy answers in Kong's place.
		client = newClient(t, Options{URL: "http://kong.internal:8001", Retries: 1})
		through(t, client, address)
		err = refused(t, client, all)
		if !strings.Contains(err.Error(), proxy.Listener.Addr().String()) || strings.Contains(err.Error(), "pr0xy-secret") ||
			audit.NeedsPerson(err) != c.person || !strings.Contains(audit.Hint(err), "NO_PROXY") {
			t.Errorf("%d: %v, hint %q", c.status, err, audit.Hint(err))
		}
		if leaked.Load() {
			t.Error("the proxy saw the token")
		}
	}
}

// The token goes to no proxy in clear.
func TestTokenPastProxy(t *testing.T) {
	var asked atomic.Int64
	proxy := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		say(w, emptyPage)
	})
	for name, o := range map[string]Options{
		"token":    {URL: "http://kong.internal:8001", Token: token(secret)},
		"password": {URL: "http://relay:" + secret + "@kong.internal:8001"},
	} {
		client := newClient(t, o)
		through(t, client, proxy.URL)
		err := refused(t, client, all)
		if !strings.Contains(err.Error(), proxy.URL) || !strings.Contains(hint(err), "add kong.internal to NO_PROXY") {
			t.Errorf("%s: %v, hint %q", name, err, hint(err))
		}
		if v := client.Version(t.Context()); v != "" {
			t.Errorf("version %q", v)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the proxy was asked %d times", n)
	}
	client := newClient(t, Options{URL: "http://kong.internal:8001"})
	through(t, client, proxy.URL)
	if _, err := client.Page(t.Context(), all); err != nil || asked.Load() != 1 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

// A proxy that cannot be reached is named as well.
func TestProxyUnreachable(t *testing.T) {
	client := newClient(t, Options{URL: "https://kong.internal:8444", Token: token(secret), Retries: 1})
	through(t, client, "http://127.0.0.1:1")
	err := refused(t, client, all)
	if !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(audit.Hint(err), "check the proxy") || audit.NeedsPerson(err) {
		t.Errorf("%v, hint %q", err, audit.Hint(err))
	}
}

func tunnel(w http.ResponseWriter, r *http.Request) {
	var d net.Dialer
	up, err := d.DialContext(r.Context(), "tcp", r.Host)
	if err != nil || r.Method != http.MethodConnect || r.Header.Get(tokenHeader) != "" {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer up.Close()
	w.WriteHeader(http.StatusOK)
	down, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer down.Close()
	go func() {
		_, _ = io.Copy(up, down)
		up.Close()
	}()
	_, _ = io.Copy(down, up)
}

// A tunnel works: the proxy sees an address and nothing else.
func TestProxyTunnel(t *testing.T) {
	k := kongtest.New(kongtest.Options{Token: secret})
	t.Cleanup(func() { k.Close() })
	k.Add(rows(2)...)
	ca := certtest.New(t, nil)
	address, err := k.StartTLS(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{ca.Issue(t, nil).Certificate}})
	if err != nil {
		t.Fatal(err)
	}
	proxy := serve(t, tunnel)
	client := newClient(t, Options{URL: address, Token: token(secret), TLS: &tls.Config{RootCAs: ca.Pool()}})
	through(t, client, proxy.URL)
	if page, err := client.Page(t.Context(), all); err != nil || len(page.Entries) != 2 {
		t.Errorf("%d entries, %v", len(page.Entries), err)
	}
}
