// Package opsclient asks the relay that serves on this machine, at its operations
// listener.
package opsclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
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
func (c *Client) do(ctx context.Context, method, path string, body io.Reader, within time.Duration) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
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
	resp, err := c.do(ctx, http.MethodGet, path, http.NoBody, timeout)
	if err != nil {
		err = fmt.Errorf("asking for health: %w", err)
		switch {
		case audit.IsNotHTTP(err):
			return audit.WithHint(err, "what listens there does not speak HTTP, so it is not the relay: make --ops-listen (RELAY_OPS_LISTEN) that of the relay")
		case errors.Is(err, io.EOF): // Redis closes the connection, and so does a relay that ends
			return audit.WithHint(err, "what listens there closes the connection: unless the relay is just ending, make --ops-listen (RELAY_OPS_LISTEN) that of the relay")
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("asking for health: the relay answers " + path + " with " + resp.Status)
	}
	return nil
}

// Status returns how things stand, if a relay answers.
func (c *Client) Status(ctx context.Context) (s app.Status, ok bool) {
	resp, err := c.do(ctx, http.MethodGet, "/status", http.NoBody, timeout)
	if err != nil {
		return s, false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	// What else may listen there is not a relay.
	return s, err == nil && json.Unmarshal(text, &s) == nil && s.From == "relay"
}

// Run has the relay run a command of this process, with its output here, and returns the
// command's exit code.
func (c *Client) Run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int, err error) {
	text, err := json.Marshal(args)
	if err != nil {
		return 0, err
	}
	resp, err := c.do(ctx, http.MethodPost, app.CommandPath, bytes.NewReader(text), 0)
	if err != nil {
		return 0, fmt.Errorf("asking the relay that has the ledger: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		if resp.StatusCode == http.StatusNotFound {
			return 0, audit.WithHint(errors.New("the relay that has the ledger cannot run this command"), "restart it: it is of another version than this program")
		}
		return 0, fmt.Errorf("the relay that has the ledger answers %s: %s", resp.Status, bytes.TrimSpace(reason))
	}
	for d := jsontext.NewDecoder(resp.Body); ; {
		var out app.CommandOutput
		if err := json.UnmarshalDecode(d, &out); err != nil {
			return 0, fmt.Errorf("reading what the relay answers: %w", err)
		}
		if out.Exit != nil {
			return *out.Exit, nil
		}
		_, err := stdout.Write(out.Stdout)
		_, errorsErr := stderr.Write(out.Stderr)
		if err := errors.Join(err, errorsErr); err != nil {
			return 0, err
		}
	}
}
