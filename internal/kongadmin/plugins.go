package kongadmin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json"
)

// Plugin is a plugin as Kong has it configured.
type Plugin struct {
	Name    string
	Enabled bool
	// Endpoint is where it sends something: relay_url, lambda_function or http_endpoint, "" if none is known.
	Endpoint string
}

const (
	pluginPages = 10
	maxPlugins  = 4 << 20 // bytes of a page of plugins
)

// Plugins returns the plugins of the default workspace, as far as the user may see
// them. It asks once.
func (c *Client) Plugins(ctx context.Context) ([]Plugin, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	var list []Plugin
	offset := ""
	for range pluginPages {
		v := url.Values{"size": {"1000"}}
		if offset != "" {
			v.Set("offset", offset)
		}
		u := c.base.JoinPath("plugins")
		u.RawQuery = v.Encode()
		page, next, err := c.pluginPage(ctx, u)
		if err != nil {
			return nil, fmt.Errorf("asking %s for its plugins: %w", c.base.Redacted(), err)
		}
		list = append(list, page...)
		if offset = next; offset == "" {
			return list, nil
		}
	}
	return list, nil
}

func (c *Client) pluginPage(ctx context.Context, u *url.URL) (list []Plugin, next string, err error) {
	resp, hidden, err := c.ask(ctx, u)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, "", &refusal{status: resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPlugins))
	if err != nil {
		return nil, "", hidden.Scrub(err)
	}
	var page struct {
		Data []struct {
			Name    string `json:"name"`
			Enabled bool   `json:"enabled"`
			Config  struct {
				RelayURL       string `json:"relay_url"`
				LambdaFunction string `json:"lambda_function"`
				HTTPEndpoint   string `json:"http_endpoint"`
			} `json:"config"`
		} `json:"data"`
		Offset string `json:"offset"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return nil, "", errors.New("the answer is not a list of plugins") // which may hold secrets
	}
	for _, p := range page.Data {
		endpoint := cmp.Or(p.Config.RelayURL, p.Config.LambdaFunction, withoutUser(p.Config.HTTPEndpoint))
		list = append(list, Plugin{Name: p.Name, Enabled: p.Enabled, Endpoint: endpoint})
	}
	return list, page.Offset, nil
}

// withoutUser returns a URL without user and password, or "" if it cannot be read.
func withoutUser(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	u.User = nil
	return u.String()
}
