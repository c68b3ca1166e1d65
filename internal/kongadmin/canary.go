package kongadmin

import (
	"context"
	"fmt"
	"io"
)

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
