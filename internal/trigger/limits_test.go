package trigger

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// Connections that say nothing take no more than their places, and the next
// trigger gets through.
func TestLimitConnections(t *testing.T) {
	const limit = 16
	var open atomic.Int64
	closed := make(chan struct{}, 20*limit) // by the server
	r := newRelay(Options{})
	s := httptest.NewUnstartedServer(r)
	LimitConnections(s.Config, limit) // its own ConnState, which httptest wraps
	t.Cleanup(s.Close)
	tracked := s.Config.ConnState
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
			closed <- struct{}{}
		default:
		}
		tracked(c, state)
	}
	s.Start()
	for range 10 * limit {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	for range 9 * limit {
		<-closed
	}
	c := newClient(t, ClientOptions{URL: s.URL, Secret: secretA, Delivery: Delivery{Retries: -1}})
	for range 3 {
		if err := c.Notify(t.Context(), []string{"a"}); err != nil {
			t.Error(err)
		}
	}
	if n := open.Load(); n > limit+1 {
		t.Errorf("%d connections are open, want at most %d", n, limit)
	}
}

// While every connection has a request, another one is closed, and those go on.
func TestLimitConnectionsInUse(t *testing.T) {
	const limit = 4
	arrived, release := make(chan struct{}), make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		w.WriteHeader(http.StatusAccepted)
	}))
	LimitConnections(s.Config, limit)
	s.Start()
	t.Cleanup(s.Close)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(ctx context.Context) (int, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
		if err != nil {
			return 0, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, resp.Body.Close()
	}
	results := make(chan error, limit)
	for range limit {
		go func() {
			_, err := get(t.Context())
			results <- err
		}()
		<-arrived
	}
	if code, err := get(t.Context()); err == nil {
		t.Errorf("%d for a connection over the limit", code)
	}
	close(release)
	for range limit {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
