package trigger

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Delivery bounds what a sender spends on one trigger. The zero value is ready.
type Delivery struct {
	Timeout time.Duration // of one attempt, with its answer; 1 s if zero
	Retries int           // after the first attempt; 2 if zero, none if negative
	MaxWait time.Duration // between two attempts, whatever Retry-After says; 2 s if zero

	CA       string // PEM text of authorities to trust beside the system's
	Insecure bool   // do not verify the certificate
}

func (d Delivery) withDefaults() Delivery {
	if d.Timeout <= 0 {
		d.Timeout = time.Second
	}
	if d.Retries == 0 {
		d.Retries = 2
	}
	d.Retries = max(d.Retries, 0)
	if d.MaxWait <= 0 {
		d.MaxWait = 2 * time.Second
	}
	return d
}

// RefusedError is a final answer: sending the same again would not help.
type RefusedError struct {
	Status int
	Reason string // printable, at most 100 bytes, may be empty
}

func (e *RefusedError) Error() string {
	s := "refused with " + strconv.Itoa(e.Status)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// Final tells whether err says that repeating the trigger would not help.
func Final(err error) bool {
	_, ok := errors.AsType[*RefusedError](err)
	return ok
}

// ClientOptions are the settings of a [Client].
type ClientOptions struct {
	// URL of the relay, http or https: its base, or the whole address that ends in [Path].
	URL string
	// Secret signs the triggers. It may be empty only if the URL's host is a loopback address.
	Secret string

	Delivery
}

// Client rings a relay over HTTP. It is safe for concurrent use.
type Client struct {
	url     string
	webhook *standardwebhooks.Webhook // nil: unsigned
	poster  *poster
}

// NewClient checks the options and returns a client. It contacts nothing.
func NewClient(o ClientOptions) (*Client, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil:
		return nil, errors.New("the relay's URL cannot be read: want http://host:port or https://host:port")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, errors.New("the relay's URL is not http://host:port or https://host:port")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the relay's URL must not hold a user, a query or a fragment")
	}
	if !strings.HasSuffix(u.Path, Path) {
		u = u.JoinPath(Path)
	}
	c := &Client{url: u.String()}
	if o.Secret == "" {
		if !loopbackHost(u.Hostname()) {
			return nil, errors.New("a secret is needed: only a relay on a loopback address takes triggers without one")
		}
	} else {
		if err := CheckSecret(o.Secret); err != nil {
			return nil, err
		}
		if c.webhook, err = standardwebhooks.NewWebhook(o.Secret); err != nil {
			return nil, errors.New("the secret is not base64")
		}
	}
	c.poster, err = newPoster(o.Delivery)
	return c, err
}

// Notify announces ids, or asks for a poll if there are none. It
// returns nil once the relay has noted all of them. More than one trigger can
// carry go out one after the other; an error means that some may not have been
// noted, and to announce them again does no harm.
func (c *Client) Notify(ctx context.Context, ids []string) error {
	return split(ids, func(ids []string) error {
		body, err := json.Marshal(newBody(ids))
		if err != nil {
			return fmt.Errorf("encoding a trigger: %w", err)
		}
		return c.poster.post(ctx, c.url, body, func(r *http.Request) error { return c.sign(r, body) })
	})
}

// Close drops idle connections.
func (c *Client) Close() { c.poster.close() }

// sign gives every attempt an id and a time of its own. Were the id kept, a
// relay that had to answer 503 after it took the id would call the next attempt
// a replay.
func (c *Client) sign(r *http.Request, body []byte) error {
	if c.webhook == nil {
		return nil
	}
	id, now := "msg_"+rand.Text(), time.Now()
	signature, err := c.webhook.Sign(id, now, body)
	if err != nil {
		return fmt.Errorf("signing a trigger: %w", err)
	}
	r.Header.Set(standardwebhooks.HeaderWebhookID, id)
	r.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	return nil
}

func newBody(ids []string) Body {
	if ids == nil {
		ids = []string{}
	}
	return Body{RequestIDs: ids, SentAt: time.Now().UTC()}
}

// split calls send with as many of ids as fit, until there are none left; with
// no ids it calls it once.
func split(ids []string, send func([]string) error) error {
	for {
		n := Fit(ids)
		if n == 0 && len(ids) > 0 {
			return errBadID // longer than a whole body
		}
		if err := send(ids[:n]); err != nil {
			return err
		}
		if ids = ids[n:]; len(ids) == 0 {
			return nil
		}
	}
}

// poster posts with bounded retries, and believes nothing of what comes back.
type poster struct {
	delivery  Delivery
	transport *http.Transport
	http      *http.Client
}

const (
	maxAnswer       = 4 << 10  // bytes of an answer's body that are read
	maxAnswerHeader = 16 << 10 // bytes of its header
	firstWait       = 100 * time.Millisecond
)

func newPoster(d Delivery) (*poster, error) {
	d = d.withDefaults()
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: d.Insecure, //nolint:gosec // asked for by tls_verify=false
	}
	if d.CA != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM([]byte(d.CA)) {
			return nil, errors.New("the CA certificate is not PEM text of a certificate")
		}
		config.RootCAs = pool
	}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: d.Timeout}).DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    d.Timeout,
		MaxConnsPerHost:        4,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true, // an answer is a line; a packed one could only be meant to hurt
	}
	return &poster{delivery: d, transport: transport, http: &http.Client{
		Transport: transport,
		Timeout:   d.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a signed trigger goes where it was meant to go
		},
	}}, nil
}

func (p *poster) close() { p.transport.CloseIdleConnections() }

// post sends body until it is taken, refused for good, or the attempts are
// used up. prepare signs each attempt.
func (p *poster) post(ctx context.Context, address string, body []byte, prepare func(*http.Request) error) error {
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, address, body)
	if err != nil {
		return fmt.Errorf("making a trigger: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "cloudtrail-relay")
	if err := prepare(req.Request); err != nil {
		return err
	}
	client := &retryablehttp.Client{
		HTTPClient:   p.http,
		RetryWaitMin: firstWait,
		RetryWaitMax: p.delivery.MaxWait,
		RetryMax:     p.delivery.Retries,
		CheckRetry:   retry,
		Backoff:      backoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		PrepareRetry: func(r *http.Request) error {
			r.Header = r.Header.Clone() // the last attempt may still be reading its own
			return prepare(r)
		},
	}
	resp, err := client.Do(req)
	if resp != nil {
		defer func() { _ = resp.Body.Close() }()
	}
	if err != nil {
		return fmt.Errorf("ringing the relay: %w", err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // so that the connection can be used again
		return nil
	}
	if transient(resp.StatusCode) {
		return fmt.Errorf("ringing the relay: it answered %d", resp.StatusCode)
	}
	return fmt.Errorf("ringing the relay: %w", &RefusedError{Status: resp.StatusCode, Reason: reason(resp.Body)})
}

func transient(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500
}

func retry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if err != nil || ctx.Err() != nil {
		return retryablehttp.ErrorPropagatedRetryPolicy(ctx, resp, err) // not for a certificate that does not verify
	}
	return transient(resp.StatusCode), nil
}

// backoff waits as long as Retry-After says, or a growing time, with jitter,
// and never longer than limit.
func backoff(first, limit time.Duration, attempt int, resp *http.Response) time.Duration {
	d := retryablehttp.DefaultBackoff(first, limit, attempt, resp)
	if d < first { // also what an absurd Retry-After overflows to
		d = first
	}
	return min(d+mathrand.N(d/4+1), limit)
}

// reason reads the reason of a refusal, as far as it can be shown in a log.
func reason(body io.Reader) string {
	data, _ := io.ReadAll(io.LimitReader(body, maxAnswer))
	var a answer
	if json.Unmarshal(data, &a) != nil || len(a.Reason) > 100 {
		return ""
	}
	for _, c := range a.Reason {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	return a.Reason
}

// answer is the body of a refusal.
type answer struct {
	Reason string `json:"reason"`
}
