// Package kongadmin reads Kong Gateway's audit log from its Admin API.
//
// It turns one query into one complete, well-formed page or into an error: a
// truncated body, an HTML page or a refusal is never an empty page. It retries
// what may pass; which pages to ask for, and in which order, others decide.
package kongadmin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/echo"
)

// Options of a client. URL is required.
type Options struct {
	// URL of the Admin API, such as https://kong.internal:8444. A path is kept as a prefix.
	URL string
	// Token gives the RBAC token for the Kong-Admin-Token header; nil sends none.
	// It is asked for each request. After a 401 it is asked once more with fresh
	// set, so that a rotated token is picked up.
	Token func(ctx context.Context, fresh bool) (string, error)
	// TLS is the configuration for https; nil takes the system's. RootCA is added to it.
	TLS *tls.Config
	// RootCA holds certificates in PEM that are trusted beside the system's: of
	// authorities, or the server's own, which is then trusted for any name.
	RootCA []byte
	// Timeout of one page, from dialling to the last byte of the last attempt. Kong
	// with its database down answers after up to 30 s. Default 60 s.
	Timeout time.Duration
	// Retries of one page after the first attempt, as far as Timeout allows. Default 4.
	Retries int
	// RetryWait is the shortest and longest wait between two attempts. Default 200 ms and 3 s.
	RetryWait [2]time.Duration
	// MaxBytes of a page of more than one row; more is audit.ErrPageTooLarge. Default 1 MiB.
	MaxBytes int
	// PublicKey checks the signatures of entries; nil checks none.
	PublicKey *rsa.PublicKey
	// Attempted, if not nil, is called with the outcome of each attempt at a page that
	// failed in a way that may pass. It must not block.
	Attempted func(err error)
	Logger    *slog.Logger
}

// requestIDHeader names the entry that Kong writes about a request. Every answer of
// the Admin API of Kong Enterprise has it.
const requestIDHeader = "X-Kong-Admin-Request-ID"

const (
	maxOwn   = 1000 // ids of own reads that the next page is to return
	maxOwnID = 128  // bytes of one; Kong's have 32

	// versionAge is how long the answer of GET / is believed.
	versionAge = 10 * time.Minute

	// maxUnused is how long a connection may have been idle to be used again. The
	// network forgets connections (a NAT gateway of AWS after 350 s), and one of a
	// process that was frozen may be gone without a sign. It is measured by the wall
	// clock, because the monotonic one may stand still while a process is frozen.
	maxUnused = time.Second
)

// Client reads pages. It is safe for concurrent use.
type Client struct {
	base   *url.URL
	tls    *tls.Config
	opts   Options
	http   *http.Client
	proxy  func(*http.Request) (*url.URL, error)
	bodies sync.Pool // of *bytes.Buffer

	mu        sync.Mutex
	used      time.Time // when a connection was last in use, by the wall clock
	version   string    // from a page's Server header, else from GET /
	versionAt time.Time // when it was last seen, or asked for
	own       []string  // own reads whose ids no page has returned yet
}

// New returns a client. It contacts nothing.
func New(opts Options) (*Client, error) {
	base, err := url.Parse(opts.URL)
	if err != nil || base.Hostname() == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, audit.SettingsErrorf("set KONG_ADMIN_API to something like https://kong.internal:8444",
			"the Admin API's address is not an http or https URL")
	}
	opts.Timeout = cmp.Or(opts.Timeout, time.Minute)
	opts.Retries = cmp.Or(opts.Retries, 4)
	opts.MaxBytes = cmp.Or(opts.MaxBytes, 1<<20)
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	if opts.RetryWait[0] <= 0 {
		opts.RetryWait = [2]time.Duration{200 * time.Millisecond, 3 * time.Second}
	}
	opts.RetryWait[1] = max(opts.RetryWait[0], opts.RetryWait[1])
	c := &Client{base: base, opts: opts, proxy: http.ProxyFromEnvironment}
	c.bodies.New = func() any { return new(bytes.Buffer) }
	config, err := trust(opts.TLS, opts.RootCA, base.Hostname())
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	c.tls = config.Clone() // net/http adds to its own
	t.TLSClientConfig = config
	t.DisableCompression = true // readBody decompresses, within its limit
	t.MaxIdleConnsPerHost = 4
	t.IdleConnTimeout = time.Minute
	t.ReadBufferSize = 64 << 10 // of an answer in chunks
	t.Proxy = func(r *http.Request) (*url.URL, error) { return c.proxy(r) }
	t.OnProxyConnectResponse = func(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return &refusal{proxy: proxy, status: resp.StatusCode}
		}
		return nil
	}
	c.http = &http.Client{
		Transport: t,
		// A redirect would carry the token somewhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Page asks for one page. An error that a person must act on is an
// *audit.SettingsError; audit.ErrPageTooLarge, audit.ErrUnsupportedQuery and
// audit.ErrBadOffset each call for another query; anything else was retried and
// may pass later. It returns within Options.Timeout, after which the error is
// context.DeadlineExceeded. If ctx ends, its error is returned.
//
// RequestIDs of a page include those of reads that failed since the page before.
func (c *Client) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	return c.pageOf(ctx, requestLog, q)
}

// Objects is the log of the entities that requests changed.
type Objects struct{ client *Client }

// Objects returns a source that reads GET /audit/objects, with the client's connections and
// settings.
func (c *Client) Objects() Objects { return Objects{c} }

// Page is [Client.Page] for the rows of /audit/objects: each entry has its Object.
func (o Objects) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	return o.client.pageOf(ctx, objectLog, q)
}

// A logName is the last segment of the path of one of Kong's two logs.
type logName string

const (
	requestLog logName = "requests"
	objectLog  logName = "objects"
)

// pageOf asks for one page of a log.
func (c *Client) pageOf(ctx context.Context, log logName, q audit.Query) (audit.Page, error) {
	within, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	c.dropIdle()
	page, err := c.page(within, log, q, false)
	if r, ok := errors.AsType[*refusal](err); ok && r.proxy == nil && r.status == http.StatusUnauthorized && c.opts.Token != nil {
		page, err = c.page(within, log, q, true)
	}
	c.dropIdle()
	if err != nil {
		return audit.Page{}, c.failed(ctx, log, err)
	}
	return page, nil
}

// failed returns the error of a page of a log that could not be had.
func (c *Client) failed(ctx context.Context, log logName, err error) error {
	what := "audit log"
	if log == objectLog {
		what = "log of changed entities"
	}
	return fmt.Errorf("reading the %s at %s: %w", what, c.base.Redacted(), c.explain(ctx, log, err))
}

// dropIdle closes idle connections that have been idle for too long, and notes that
// the connections are in use now.
func (c *Client) dropIdle() {
	now := time.Now().Round(0) // the wall clock alone
	c.mu.Lock()
	idle := now.Sub(c.used)
	c.used = now
	c.mu.Unlock()
	if idle > maxUnused || idle < 0 {
		c.http.CloseIdleConnections()
	}
}

func (c *Client) page(ctx context.Context, log logName, q audit.Query, freshToken bool) (audit.Page, error) {
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
	u := c.base.JoinPath("audit", string(log))
	u.RawQuery = v.Encode()
	req, err := c.request(ctx, u, freshToken)
	if err != nil {
		return audit.Page{}, err
	}
	hidden := c.secrets(req)

	// Each attempt is judged whole, so that a body that breaks off or does not
	// parse is retried like a connection that broke.
	var (
		page    audit.Page
		version string
		last    error
	)
	client := c.retrying(func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		if resp != nil {
			c.noteOwn(resp.Header.Get(requestIDHeader))
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err == nil {
			page, version, err = c.decode(resp, log, q, hidden)
		}
		last = hidden.Scrub(withoutURL(err))
		again := err != nil && mayPass(err)
		if again && c.opts.Attempted != nil {
			c.opts.Attempted(c.failed(ctx, log, last)) // before the wait, which Retry-After can lengthen
		}
		return again, nil
	}, func() {
		c.opts.Logger.DebugContext(ctx, "kong did not give a page, asking again", "err", last)
	})
	resp, err := client.Do(req)
	if resp != nil {
		resp.Body.Close()
	}
	switch {
	case ctx.Err() != nil && last != nil:
		return audit.Page{}, fmt.Errorf("%w (before that: %w)", ctx.Err(), last) // whose hint is the better one
	case ctx.Err() != nil && err != nil:
		return audit.Page{}, ctx.Err()
	case last != nil:
		return audit.Page{}, last
	case err != nil:
		return audit.Page{}, hidden.Scrub(withoutURL(err))
	}
	page.RequestIDs = c.takeOwn()
	c.setVersion(ctx, &page, version)
	return page, nil
}

// withoutURL takes net/http's "Get <URL>:" off an error: Page names the address.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

func (c *Client) retrying(check retryablehttp.CheckRetry, again func()) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient:   c.http,
		RetryWaitMin: c.opts.RetryWait[0],
		RetryWaitMax: c.opts.RetryWait[1],
		RetryMax:     c.opts.Retries,
		CheckRetry:   check,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		PrepareRetry: func(*http.Request) error {
			again()
			return nil
		},
		Backoff: func(shortest, longest time.Duration, attempt int, resp *http.Response) time.Duration {
			// The library obeys Retry-After whatever it says, and overflows.
			wait := retryablehttp.DefaultBackoff(shortest, longest, attempt, resp)
			return min(max(wait, shortest), 10*longest)
		},
	}
}

// noteOwn keeps the id of a read until the next page reports it.
func (c *Client) noteOwn(id string) {
	if id == "" || len(id) > maxOwnID {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own = append(c.own, id); len(c.own) > maxOwn {
		c.own = slices.Delete(c.own, 0, len(c.own)-maxOwn)
	}
}

func (c *Client) takeOwn() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.own
	c.own = nil
	return own
}

const tokenHeader = "Kong-Admin-Token"

func (c *Client) request(ctx context.Context, u *url.URL, freshToken bool) (*retryablehttp.Request, error) {
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "kong-cloudtrail-relay")
	token := ""
	if c.opts.Token != nil {
		if token, err = c.opts.Token(ctx, freshToken); err != nil {
			return nil, &tokenError{err}
		}
		if strings.ContainsFunc(token, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nil, audit.SettingsErrorf("KONG_ADMIN_TOKEN must be the token alone, on one line",
				"the Admin API token holds a line break or another control character")
		}
	}
	if token != "" {
		req.Header.Set(tokenHeader, token)
	}
	proxy, err := c.proxy(req.Request)
	if err != nil {
		return nil, audit.NewSettingsError(errors.New("the proxy's address is not a URL"), "correct HTTP_PROXY or HTTPS_PROXY")
	}
	if proxy != nil && u.Scheme == "http" && (token != "" || u.User != nil) {
		return nil, audit.SettingsErrorf("add "+u.Hostname()+" to NO_PROXY, or give KONG_ADMIN_API with https",
			"the proxy %s would see the Admin API token in clear", proxy.Redacted())
	}
	return req, nil
}

// secrets returns the parts of a request that must not be repeated.
func (c *Client) secrets(req *retryablehttp.Request) echo.Secrets {
	s := echo.Secrets{req.Header.Get(tokenHeader)}
	if password, ok := c.base.User.Password(); ok {
		s = append(s, password)
	}
	return s
}
