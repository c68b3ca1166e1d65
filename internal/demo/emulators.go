//go:build !lambda.norpc

package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// emulators are what the demo has instead of Kong and AWS.
type emulators struct {
	kong    *kongtest.Server
	logs    *cloudwatchtest.Server
	serving http.Server

	kongURL, pageURL string
	client           http.Client
}

func startEmulators(page string) (*emulators, error) {
	e := &emulators{
		kong:   kongtest.New(kongtest.Options{RowDelay: 100 * time.Millisecond, RowDelayMax: 300 * time.Millisecond, SkipReads: true}),
		logs:   cloudwatchtest.New(cloudwatchtest.Options{}),
		client: http.Client{Timeout: 5 * time.Second},
	}
	var err error
	if e.kongURL, err = e.kong.Start(); err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", page)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the page: %w", err), e.kong.Close())
	}
	e.pageURL = "http://" + listener.Addr().String()
	e.serving = http.Server{Handler: e.logs, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = e.serving.Serve(listener) }() // until close
	return e, nil
}

func (e *emulators) close() error { return errors.Join(e.serving.Close(), e.kong.Close()) }

// adminRequest makes the nth of a round of Admin requests, and returns the id
// that Kong gave it.
func (e *emulators) adminRequest(ctx context.Context, n int) (id string, err error) {
	requests := []struct{ method, path, body string }{
		{http.MethodPost, "/services", `{"name":"orders","host":"orders.internal","port":8080,"path":"/a"}`},
		{http.MethodGet, "/services?size=100", ""},
		{http.MethodPost, "/services/orders/routes", `{"name":"orders","paths":["/orders"]}`},
		{http.MethodPatch, "/services/orders", `{"path":"/b"}`},
		{http.MethodPost, "/consumers", `{"username":"alice","custom_id":"1001"}`},
		{http.MethodPost, "/consumers/alice/key-auth", `{"key":"demo"}`},
		{http.MethodGet, "/status", ""},
		{http.MethodPost, "/services/orders/plugins", `{"name":"rate-limiting","config":{"minute":60}}`},
		{http.MethodPatch, "/routes/orders", `{"paths":["/orders","/v2/orders"],"strip_path":false}`},
		{http.MethodDelete, "/consumers/alice", ""},
		{http.MethodGet, "/event-hooks/?size=100", ""},
	}
	r := requests[n%len(requests)]
	if round := n / len(requests); round > 0 { // names are unique
		replace := strings.NewReplacer("orders", fmt.Sprintf("orders-%d", round+1), "alice", fmt.Sprintf("alice-%d", round+1))
		r.path, r.body = replace.Replace(r.path), replace.Replace(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, e.kongURL+r.path, strings.NewReader(r.body))
	if err != nil {
		return "", err
	}
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.Header.Get("X-Kong-Admin-Request-ID"), err
}

func (e *emulators) waitRows(ctx context.Context) error {
	if e.kong.Await(ctx, func() bool { return e.kong.LateRows() == 0 }) != nil {
		return errors.New("the emulated Kong has not written all of its rows")
	}
	return nil
}
