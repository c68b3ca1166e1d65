// Package opsclient asks the relay that serves on this machine, at its operations
// listener.
package opsclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/verify"
)

// timeout is less than container runtimes wait for a health check.
const timeout = 3 * time.Second

// Client asks a relay.
type Client struct {
	base string
	key  string // of the relay's ledger
}

// New returns a client of the relay whose operations listener has an address.
func New(listen string) (*Client, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost" // who listens on every address listens there too
	}
	return &Client{base: "http://" + net.JoinHostPort(host, port)}, nil
}

// Unlock reads the key that the relay keeps beside its ledger's file: it answers
// questions about the ledger to whoever may read that file, and to nobody else.
func (c *Client) Unlock(ledgerFile string) error {
	key, err := os.ReadFile(app.KeyFile(ledgerFile))
	if err != nil {
		return fmt.Errorf("reading the key of the relay that has the ledger: %w", err)
	}
	c.key = strings.TrimSpace(string(key))
	return nil
}

// do makes a request. The caller closes the body, for which there is as much time as
// for the answer: within, or no limit if that is 0.
func (c *Client) do(ctx context.Context, method, path string, within time.Duration) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	// No proxy: it is this machine.
	client := &http.Client{Timeout: within, Transport: &http.Transport{DisableKeepAlives: true}}
	return client.Do(req)
}

// Health returns an error unless the relay answers a path with 200.
func (c *Client) Health(ctx context.Context, path string) error {
	resp, err := c.do(ctx, http.MethodGet, path, timeout)
	if err != nil {
		return fmt.Errorf("asking for health: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("asking for health: the relay answers " + path + " with " + resp.Status)
	}
	return nil
}

// Status returns how things stand, if a relay answers.
func (c *Client) Status(ctx context.Context) (s app.Status, ok bool) {
	resp, err := c.do(ctx, http.MethodGet, "/status", timeout)
	if err != nil {
		return s, false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	// What else may listen there is not a relay.
	return s, err == nil && json.Unmarshal(text, &s) == nil && s.From == "relay"
}

// ledger asks about the ledger.
func (c *Client) ledger(ctx context.Context, method, path string) (*http.Response, error) {
	resp, err := c.do(ctx, method, path, 0)
	if err != nil {
		return nil, fmt.Errorf("asking the relay that has the ledger: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var refusal struct{ Error, Hint string }
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if json.Unmarshal(text, &refusal, json.MatchCaseInsensitiveNames(true)) != nil || refusal.Error == "" {
		refusal.Error = resp.Status
	}
	err = fmt.Errorf("the relay that has the ledger answers: %s", refusal.Error)
	if refusal.Hint != "" {
		err = audit.WithHint(err, refusal.Hint)
	}
	return nil, err
}

// each reads the values of an answer, one after the other.
func each[T any](c *Client, ctx context.Context, path string) iter.Seq2[T, error] { //nolint:revive // a method cannot have a type parameter
	return func(yield func(T, error) bool) {
		var none T
		resp, err := c.ledger(ctx, http.MethodGet, path)
		if err != nil {
			yield(none, err)
			return
		}
		defer resp.Body.Close()
		for d := jsontext.NewDecoder(resp.Body); ; {
			var v T
			switch err := json.UnmarshalDecode(d, &v); {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(none, fmt.Errorf("reading what the relay answers: %w", err))
				return
			case !yield(v, nil):
				return
			}
		}
	}
}

// UndeliveredEntries goes over dead letters and deferred entries.
func (c *Client) UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error] {
	return each[audit.Undelivered](c, ctx, app.PathUndelivered)
}

// UndeliveredEntry returns one of them.
func (c *Client) UndeliveredEntry(ctx context.Context, id string) (u audit.Undelivered, found bool, err error) {
	for u, err := range each[audit.Undelivered](c, ctx, app.PathUndelivered+"?"+url.Values{"id": {id}}.Encode()) {
		return u, err == nil, err
	}
	return u, false, nil
}

// Outages returns the outages that had not ended by a time, oldest first.
func (c *Client) Outages(ctx context.Context, since time.Time) (list []audit.Outage, err error) {
	for o, err := range each[audit.Outage](c, ctx, app.PathOutages+"?"+url.Values{"since": {since.UTC().Format(time.RFC3339)}}.Encode()) {
		if err != nil {
			return nil, err
		}
		list = append(list, o)
	}
	return list, nil
}

// Retry has the relay put undelivered entries again.
func (c *Client) Retry(ctx context.Context, s *app.Selection) (r app.Retried, err error) {
	err = c.have(ctx, app.PathRetry, s.Query(), &r)
	return r, err
}

// Drop has the relay give undelivered entries up, and returns how many it did.
func (c *Client) Drop(ctx context.Context, s *app.Selection, reason string) (dropped int, err error) {
	q := s.Query()
	q.Set("reason", reason)
	var answer struct {
		Dropped int `json:"dropped"`
	}
	err = c.have(ctx, app.PathDrop, q, &answer)
	return answer.Dropped, err
}

// have has the relay do something to the ledger, and reads its answer.
func (c *Client) have(ctx context.Context, path string, q url.Values, answer any) error {
	resp, err := c.ledger(ctx, http.MethodPost, path+"?"+q.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.UnmarshalRead(resp.Body, answer); err != nil {
		return fmt.Errorf("reading what the relay answers: %w", err)
	}
	return nil
}

// Verify has the relay compare Kong, ledger and destination.
func (c *Client) Verify(ctx context.Context, o verify.Options) (*verify.Report, error) {
	resp, err := c.ledger(ctx, http.MethodPost, app.PathVerify+"?"+o.Query().Encode())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return verify.ReadReport(resp.Body, o)
}
