package kongadmin

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"
)

// reachWithin is how long Reach waits for a connection.
const reachWithin = 5 * time.Second

// Reach connects to the Admin API, with TLS if its address says so, and closes the
// connection. It sends no request, since Kong would record that. It returns nil if requests
// pass a proxy, which says nothing of what is behind it.
func (c *Client) Reach(ctx context.Context) error {
	if c.via() != nil {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	dial, port := new(net.Dialer).DialContext, "80"
	if c.base.Scheme == "https" {
		dial, port = (&tls.Dialer{Config: c.tls}).DialContext, "443"
	}
	conn, err := dial(within, "tcp", net.JoinHostPort(c.base.Hostname(), cmp.Or(c.base.Port(), port)))
	if err != nil {
		return c.failed(ctx, requestLog, err)
	}
	_ = conn.Close()
	return nil
}

// Canary makes a request that Kong should record, GET /, and returns the id of its
// entry; empty if Kong does not say it. What Kong answers does not matter: it records
// refusals as well.
func (c *Client) Canary(ctx context.Context) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	req, err := c.request(ctx, c.base.JoinPath("/"), false)
	if err != nil {
		return "", fmt.Errorf("asking %s for an entry: %w", c.base.Redacted(), err)
	}
	resp, err := c.http.Do(req.Request)
	if err != nil {
		return "", fmt.Errorf("asking %s for an entry: %w", c.base.Redacted(), c.secrets(req).scrub(withoutURL(err)))
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxRoot)) // only so that the connection can be used again
	_ = resp.Body.Close()
	if id = resp.Header.Get(requestIDHeader); len(id) > maxOwnID {
		return "", nil
	}
	return id, nil
}
