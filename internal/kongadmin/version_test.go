package kongadmin

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

func TestVersion(t *testing.T) {
	for name, c := range map[string]struct {
		server string // header of a page
		root   http.HandlerFunc
		want   string
		asked  int64 // times GET / is asked for, over five pages
	}{
		"header":           {"kong/3.9.1.1-enterprise-edition", nil, "3.9.1.1-enterprise-edition", 0},
		"header with more": {"openresty/1.25 Kong/3.4.3.9", nil, "3.4.3.9", 0},
		"root": {"", func(w http.ResponseWriter, _ *http.Request) {
			say(w, `{"version":"2.8.1.1-enterprise-edition"}`)
		}, "2.8.1.1-enterprise-edition", 1},
		"proxy, then root": {"nginx/1.27", func(w http.ResponseWriter, _ *http.Request) { say(w, `{"version":"3.9.1.1"}`) }, "3.9.1.1", 1},
		"root 500": {"", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			say(w, `{"version":"no"}`)
		}, "", 1},
		"root 500, header": {"kong/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Server", "kong/3.9.1")
			w.WriteHeader(500)
		}, "3.9.1", 1},
		"root not JSON":     {"", func(w http.ResponseWriter, _ *http.Request) { say(w, `{"version":"3.9"`) }, "", 1},
		"root no version":   {"", func(w http.ResponseWriter, _ *http.Request) { say(w, `{"tagline":"hi"}`) }, "", 1},
		"root null version": {"", func(w http.ResponseWriter, _ *http.Request) { say(w, `{"version":null}`) }, "", 1},
		"root cut": {"", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			say(w, `{}`)
		}, "", 1},
		"root breaks": {"", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get(tokenHeader) != secret {
					t.Error("no token")
				}
				if r.URL.Path == "/" {
					asked.Add(1)
					c.root(w, r)
					return
				}
				if c.server != "" {
					w.Header().Set("Server", c.server)
				}
				say(w, `{"data":[{"request_id":"a"},{"request_id":"b"}]}`)
			})
			client := newClient(t, Options{URL: s.URL, Token: token(secret)})
			for range 5 {
				page, err := client.Page(t.Context(), all)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range page.Entries {
					if e.KongVersion != c.want {
						t.Errorf("version %q, want %q", e.KongVersion, c.want)
					}
				}
			}
			if n := asked.Load(); n > c.asked+1 || n < c.asked { // net/http tries a broken connection again
				t.Errorf("asked %d times", n)
			}
			if v := client.Version(t.Context()); v != c.want {
				t.Errorf("version %q, want %q", v, c.want)
			}
		})
	}
}

// A version of GET / is believed for a while, and longer if nobody can be asked.
func TestVersionAsksAgain(t *testing.T) {
	version := "3.4"
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"version":%q}`, version) })
	c := newClient(t, Options{URL: s.URL})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v := c.Version(ctx); v != "" {
		t.Errorf("a cancelled call got %q", v)
	}
	if v := c.Version(t.Context()); v != "3.4" {
		t.Errorf("got %q", v)
	}
	version = "3.9"
	if v := c.Version(t.Context()); v != "3.4" {
		t.Errorf("asked again at once: %q", v)
	}
	c.versionAt = time.Now().Add(-2 * versionAge)
	if v := c.Version(ctx); v != "3.4" {
		t.Errorf("a cancelled call forgot the version: %q", v)
	}
	if v := c.Version(t.Context()); v != "3.9" {
		t.Errorf("not asked again: %q", v)
	}
}
