package kongadmin

import (
	"context"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Version of the gateway: that of the last page, else what GET / says, else empty.
func (c *Client) Version(ctx context.Context) string {
	c.mu.Lock()
	v, at := c.version, c.versionAt
	c.mu.Unlock()
	if !at.IsZero() && time.Since(at) < versionAge {
		return v
	}
	// Kong 3.9 with a plugin server answers 500 here from one of its workers, so
	// this is only the second source, tried seldom and never insisted upon.
	v = c.askVersion(ctx)
	if v == "" && ctx.Err() != nil {
		return v // nobody was asked
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.versionAt = time.Now()
	if v != "" {
		c.version = v
	}
	return c.version
}

func (c *Client) askVersion(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, min(5*time.Second, c.opts.Timeout))
	defer cancel()
	req, err := c.request(ctx, c.base.JoinPath("/"), false)
	if err != nil {
		return ""
	}
	resp, err := c.http.Do(req.Request)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	if v := rootVersion(resp); !c.secrets(req).echoed(v) {
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
