// Package kongadmin reads Kong Gateway's audit log from its Admin API.
//
// It turns one query into one complete, well-formed page or into an error: a
// truncated body, an HTML page or a refusal is never an empty page. What heals
// by itself is tried again here; which pages to ask for, and in which order, is
// the business of package pipeline.
package kongadmin

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Options of a client. URL is required.
type Options struct {
	// URL of the Admin API, such as https://kong.internal:8444. A path is kept as a prefix.
	URL string
	// Token gives the RBAC token for the Kong-Admin-Token header; nil sends none.
	// It is asked for each request. After a 401 it is asked once more with fresh
	// set, so that a rotated token is picked up.
	Token func(ctx context.Context, fresh bool) (string, error)
	// TLS is the configuration for https; nil takes the system's.
	TLS *tls.Config
	// Timeout of one attempt, from dialling to the last byte. Kong with its database
	// down answers after up to 30 s. Default 60 s.
	Timeout time.Duration
	// Retries of one page after the first attempt. Default 4.
	Retries int
	// RetryWait is the shortest and longest wait between two attempts. Default 200 ms and 3 s.
	RetryWait [2]time.Duration
	// MaxBytes of a page of more than one row; more is audit.ErrPageTooLarge. Default 2 MiB.
	MaxBytes int
	// PublicKey checks the signatures of entries; nil checks none.
	PublicKey *rsa.PublicKey
	Logger    *slog.Logger
}

// maxRow bounds a page of a single row. A payload is up to about 10 MiB (Kong's
// documentation), and as text inside JSON it can grow sixfold.
const maxRow = 64 << 20

// Client reads pages. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	opts    Options
	http    *http.Client
	retried atomic.Int64

	mu        sync.Mutex
	version   string    // from GET /, where the Server header does not tell
	versionAt time.Time // when GET / was last asked
}

// New returns a client. It contacts nothing.
func New(opts Options) (*Client, error) {
	base, err := url.Parse(opts.URL)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, audit.Settingsf("set KONG_ADMIN_API to something like https://kong.internal:8444",
			"the Admin API's address is not an http or https URL")
	}
	if opts.Timeout <= 0 {
		opts.Timeout = time.Minute
	}
	if opts.Retries <= 0 {
		opts.Retries = 4
	}
	if opts.RetryWait[0] <= 0 {
		opts.RetryWait = [2]time.Duration{200 * time.Millisecond, 3 * time.Second}
	}
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = 2 << 20
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{base: base, opts: opts}

	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = opts.TLS
	t.DisableCompression = true // Kong's Admin API does not compress
	t.MaxIdleConnsPerHost = 4
	c.http = &http.Client{
		Transport: &wholeBody{next: t, max: opts.MaxBytes},
		Timeout:   opts.Timeout,
		// A redirect would carry the token somewhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Page asks for one page. Errors that a person has to heal are
// *audit.SettingsError; audit.ErrPageTooLarge and audit.ErrBadOffset have
// their own cure; anything else was tried several times and may heal later.
func (c *Client) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	page, err := c.page(ctx, q, false)
	var refused *refusal
	if errors.As(err, &refused) && refused.status == http.StatusUnauthorized && c.opts.Token != nil {
		page, err = c.page(ctx, q, true)
	}
	if err != nil {
		return audit.Page{}, fmt.Errorf("reading the audit log at %s: %w", c.base.Redacted(), c.explain(err))
	}
	return page, nil
}

func (c *Client) page(ctx context.Context, q audit.Query, freshToken bool) (audit.Page, error) {
	v := url.Values{"size": {strconv.Itoa(q.Size)}}
	if q.After != 0 {
		v.Set("after", strconv.FormatInt(q.After, 10))
	}
	if q.Ascending {
		v.Set("sort_by", "request_timestamp")
		v.Set("sort_desc", "false")
	}
	if q.Offset != "" {
		v.Set("offset", q.Offset)
	}
	u := c.base.JoinPath("audit", "requests")
	u.RawQuery = v.Encode()
	req, err := c.request(ctx, u, freshToken)
	if err != nil {
		return audit.Page{}, err
	}

	// Each attempt is judged whole, so that a body that does not parse is
	// retried like a connection that broke.
	var (
		page audit.Page
		last error
		own  []string
	)
	client := c.retrying(func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err == nil {
			if id := resp.Header.Get("X-Kong-Admin-Request-ID"); id != "" {
				own = append(own, id)
			}
			page, err = c.decode(resp, q)
		}
		last = err
		retry := err != nil && heals(err)
		if retry {
			c.retried.Add(1)
		}
		return retry, nil
	})
	resp, err := client.Do(req)
	if resp != nil {
		resp.Body.Close()
	}
	switch {
	case last != nil:
		return audit.Page{}, last
	case err != nil:
		return audit.Page{}, err
	}
	page.RequestIDs = own
	c.setVersion(ctx, &page)
	return page, nil
}

func (c *Client) retrying(check retryablehttp.CheckRetry) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient:   c.http,
		RetryWaitMin: c.opts.RetryWait[0],
		RetryWaitMax: c.opts.RetryWait[1],
		RetryMax:     c.opts.Retries,
		CheckRetry:   check,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		Backoff: func(shortest, longest time.Duration, attempt int, resp *http.Response) time.Duration {
			// The library obeys Retry-After whatever it says.
			return min(retryablehttp.DefaultBackoff(shortest, longest, attempt, resp), 10*longest)
		},
	}
}

func (c *Client) request(ctx context.Context, u *url.URL, freshToken bool) (*retryablehttp.Request, error) {
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "kong-cloudtrail-relay")
	if c.opts.Token != nil {
		token, err := c.opts.Token(ctx, freshToken)
		if err != nil {
			return nil, fmt.Errorf("getting the Admin API token: %w", err)
		}
		req.Header.Set("Kong-Admin-Token", token)
	}
	return req, nil
}

// Retried is the number of attempts so far that failed and were made again.
func (c *Client) Retried() int64 { return c.retried.Load() }

// Version of the gateway: that of the last page, else what GET / says, else empty.
func (c *Client) Version(ctx context.Context) string {
	c.mu.Lock()
	v, at := c.version, c.versionAt
	c.mu.Unlock()
	if v != "" || time.Since(at) < 10*time.Minute {
		return v
	}
	// Kong 3.9 with a plugin server answers 500 here from one of its workers, so
	// this is only the second source, tried seldom and never insisted upon.
	req, err := c.request(ctx, c.base.JoinPath("/"), false)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var resp *http.Response
		if resp, err = c.http.Do(req.Request.WithContext(ctx)); err == nil {
			defer resp.Body.Close()
			v = rootVersion(resp)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.versionAt = time.Now()
	if v != "" {
		c.version = v
	}
	return c.version
}

// setVersion gives the page's entries the version of the gateway that sent them.
func (c *Client) setVersion(ctx context.Context, p *audit.Page) {
	if len(p.Entries) == 0 {
		return
	}
	v := p.Entries[0].KongVersion
	if v == "" {
		v = c.Version(ctx)
	} else {
		c.mu.Lock()
		c.version, c.versionAt = v, time.Now()
		c.mu.Unlock()
	}
	for i := range p.Entries {
		p.Entries[i].KongVersion = v
	}
}

// serverVersion takes the version out of a header such as "kong/3.9.1".
func serverVersion(server string) string {
	for field := range strings.FieldsSeq(server) {
		if name, v, ok := strings.Cut(field, "/"); ok && strings.EqualFold(name, "kong") && v != "" {
			return v
		}
	}
	return ""
}

// wholeBody reads every answer to its end before it is looked at, so that a body
// that breaks off is an error of the exchange.
type wholeBody struct {
	next http.RoundTripper
	max  int
}

func (t *wholeBody) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	limit := t.max
	if req.URL.Query().Get("size") == "1" {
		limit = maxRow
	}
	if resp.ContentLength > int64(limit) {
		return nil, fmt.Errorf("%w: %d bytes", audit.ErrPageTooLarge, resp.ContentLength)
	}
	var buf bytes.Buffer
	buf.Grow(int(max(resp.ContentLength, 4096)) + bytes.MinRead)
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, int64(limit)+1))
	if n > int64(limit) {
		return nil, fmt.Errorf("%w: more than %d bytes", audit.ErrPageTooLarge, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("answer broke off after %d bytes: %w", n, err)
	}
	resp.Body = io.NopCloser(&buf)
	return resp, nil
}
