package kongadmin

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/echo"
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

// ask makes a request that is not for a page, once. The error repeats no secret; what is
// answered may repeat those that are returned with it.
func (c *Client) ask(ctx context.Context, u *url.URL) (*http.Response, echo.Secrets, error) {
	req, err := c.request(ctx, u, false)
	if err != nil {
		return nil, nil, err
	}
	hidden := c.secrets(req)
	resp, err := c.http.Do(req.Request)
	if err != nil {
		return nil, nil, hidden.Scrub(withoutURL(err))
	}
	return resp, hidden, nil
}

// Canary makes a request that Kong should record, GET /, and returns the id of its
// entry; empty if Kong does not say it. What Kong answers does not matter: it records
// refusals as well.
func (c *Client) Canary(ctx context.Context) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	resp, _, err := c.ask(ctx, c.base.JoinPath("/"))
	if err != nil {
		return "", fmt.Errorf("asking %s for an entry: %w", c.base.Redacted(), err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxRoot)) // only so that the connection can be used again
	_ = resp.Body.Close()
	if id = resp.Header.Get(requestIDHeader); len(id) > maxOwnID {
		return "", nil
	}
	return id, nil
}

// Version of the gateway: that of the last page, else what GET / says, else empty.
func (c *Client) Version(ctx context.Context) string {
	c.mu.Lock()
	known, at := c.version, c.versionAt
	c.mu.Unlock()
	if !at.IsZero() && time.Since(at) < versionAge {
		return known
	}
	// Kong 3.9 with a plugin server answers 500 here from one of its workers, so
	// this is only the second source, tried seldom and never insisted upon.
	v := c.askVersion(ctx)
	if v == "" && ctx.Err() != nil {
		return known // nobody was asked
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version, c.versionAt = cmp.Or(v, c.version), time.Now()
	return c.version
}

func (c *Client) askVersion(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, min(5*time.Second, c.opts.Timeout))
	defer cancel()
	resp, hidden, err := c.ask(ctx, c.base.JoinPath("/"))
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	if v := rootVersion(resp); !hidden.In(v) {
		return v
	}
	return ""
}

// setVersion gives the page's entries the version of the gateway that sent them.
func (c *Client) setVersion(ctx context.Context, p *audit.Page, version string) {
	if len(p.Entries) == 0 {
		return
	}
	if version == "" {
		version = c.Version(ctx)
	} else {
		c.mu.Lock()
		c.version, c.versionAt = version, time.Now()
		c.mu.Unlock()
	}
	for i := range p.Entries {
		p.Entries[i].KongVersion = version
	}
}
