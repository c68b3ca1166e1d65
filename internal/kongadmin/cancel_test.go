package kongadmin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// A Kong that does not answer, or only in drips, holds a page for one timeout, with
// all attempts.
func TestTimeout(t *testing.T) {
	for name, begin := range map[string]func(w http.ResponseWriter, r *http.Request){
		"no answer": func(http.ResponseWriter, *http.Request) {},
		"no body":   func(w http.ResponseWriter, _ *http.Request) { say(w, `{"data":[`); w.(http.Flusher).Flush() },
		"drips": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				say(w, " ")
				w.(http.Flusher).Flush()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				begin(w, r)
				<-r.Context().Done()
			})
			c := newClient(t, Options{
				URL: s.URL, Timeout: 100 * time.Millisecond, Retries: 600, Token: token(secret), MaxBytes: 1 << 30,
				RetryWait: [2]time.Duration{10 * time.Millisecond, 10 * time.Millisecond},
			})
			start := time.Now()
			err := refused(t, c, all)
			if !strings.Contains(audit.Hint(err), "--kong-timeout") || hint(err) != "" || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, hint %q", err, audit.Hint(err))
			}
			if took := time.Since(start); took > 30*time.Second { // a timeout for each attempt makes it a minute
				t.Errorf("it took %v", took)
			}
		})
	}
	t.Run("503 in between", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, Options{
				URL: "http://kong", Timeout: 100 * time.Millisecond, Retries: 1e6, Token: token(secret),
				RetryWait: [2]time.Duration{10 * time.Millisecond, 10 * time.Millisecond},
			})
			c.http.Transport = unavailable("")
			begin := time.Now()
			err := refused(t, c, all)
			want := "Kong's error log and at its database" // the answer says more than the time does
			if !strings.Contains(audit.Hint(err), want) || hint(err) != "" || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, hint %q", err, audit.Hint(err))
			}
			if took := time.Since(begin); took != 100*time.Millisecond {
				t.Errorf("it took %v", took)
			}
		})
	})
}

// unavailable is what answers every request with 503, as a server of that name.
func unavailable(server string) transport {
	return func(*http.Request) (*http.Response, error) {
		header := http.Header{}
		if server != "" {
			header.Set("Server", server)
		}
		return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: header, Body: http.NoBody}, nil
	}
}

// Who cancels gets an answer at once, wherever the read is, and the reason is the
// context's.
func TestCancel(t *testing.T) {
	for name, c := range map[string]struct {
		do func(w http.ResponseWriter, r *http.Request, cancel func())
	}{
		"before the answer": {func(_ http.ResponseWriter, r *http.Request, cancel func()) {
			cancel()
			<-r.Context().Done()
		}},
		"in the body": {func(w http.ResponseWriter, r *http.Request, cancel func()) {
			say(w, `{"data":[`)
			w.(http.Flusher).Flush()
			cancel()
			<-r.Context().Done()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			s := serve(t, func(w http.ResponseWriter, r *http.Request) { c.do(w, r, cancel) })
			if err := canceled(ctx, t, newClient(t, Options{URL: s.URL})); hint(err) != "" {
				t.Errorf("hint %q", hint(err))
			}
		})
	}
	t.Run("between two attempts", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client := newClient(t, Options{URL: "http://kong", RetryWait: [2]time.Duration{time.Hour, time.Hour}})
		client.http.Transport = transport(func(*http.Request) (*http.Response, error) {
			// The body is closed before the wait.
			return &http.Response{StatusCode: 500, Header: http.Header{}, Body: closer{http.NoBody, cancel}}, nil
		})
		if err := canceled(ctx, t, client); !strings.Contains(err.Error(), "500") {
			t.Errorf("%v does not tell what went before", err)
		}
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type closer struct {
	io.Reader
	close func()
}

func (c closer) Close() error {
	c.close()
	return nil
}

// canceled asks for a page and waits for the error of ctx.
func canceled(ctx context.Context, t *testing.T, c *Client) error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := c.Page(ctx, all)
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		return err
	case <-time.After(time.Minute):
		t.Fatal("still there")
		return nil
	}
}

// A deadline that runs out while Kong refuses is the caller's, not a setting.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		c := newClient(t, Options{URL: "http://kong", RetryWait: [2]time.Duration{time.Hour, time.Hour}})
		c.http.Transport = unavailable("")
		_, err := c.Page(ctx, all)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "503") || strings.Contains(err.Error(), "--kong-timeout") {
			t.Error(err)
		}
	})
}
