package trigger

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
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

	"github.com/go-json-experiment/json"
	"github.com/hashicorp/go-retryablehttp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Delivery bounds what a sender spends on one trigger. The zero value is ready to use.
type Delivery struct {
	Timeout time.Duration // of one attempt, including its answer; 1 s if zero
	Retries int           // after the first attempt; 2 if zero, none if negative
	MaxWait time.Duration // between two attempts, whatever Retry-After says; 2 s if zero

	// CA is the PEM text of authorities that are trusted in addition to the
	// system's. Its lines may end in the two characters \n, as they do where a
	// form or an environment file holds the text in one line.
	CA       string
	Insecure bool // do not verify the certificate
}

func (d Delivery) withDefaults() Delivery {
	d.Timeout = cmp.Or(d.Timeout, time.Second)
	d.Retries = max(cmp.Or(d.Retries, 2), 0)
	d.MaxWait = cmp.Or(d.MaxWait, 2*time.Second)
	return d
}

// AnswerError is an answer other than success, from the relay or from something before it.
type AnswerError struct {
	Status int
	Reason string // printable, at most 100 bytes, may be empty
}

func (e *AnswerError) Error() string {
	s := "refused with " + strconv.Itoa(e.Status)
	if transient(e.Status) {
		s = "answered with " + strconv.Itoa(e.Status)
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// Final reports whether err means that the same trigger would be refused again.
func Final(err error) bool {
	answer, ok := errors.AsType[*AnswerError](err)
	return ok && !transient(answer.Status)
}

// ClientOptions are the settings of a [Client].
type ClientOptions struct {
	// URL is the relay's address, http or https: its base, or all of it up to [Path].
	URL string
	// Secret signs the triggers. It may be empty only if the URL's host is a loopback address.
	Secret string

	Delivery
}

// Client sends triggers to a relay over HTTP, with a bounded number of attempts. It
// trusts nothing in the answers. It is safe for concurrent use.
type Client struct {
	url       string
	webhook   *standardwebhooks.Webhook // nil: unsigned
	delivery  Delivery
	transport *http.Transport
	http      *http.Client
}

// NewClient checks the options and returns a client. It makes no connection.
func NewClient(o ClientOptions) (*Client, error) {
	u, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(u.Path, Path) {
		u = u.JoinPath(Path)
	}
	c := &Client{url: u.String(), delivery: o.withDefaults()}
	if o.Secret == "" {
		if !LoopbackHost(u.Hostname()) {
			return nil, errors.New("a secret is needed: only a relay on a loopback address accepts triggers without one")
		}
	} else {
		if err := CheckSecret(o.Secret); err != nil {
			return nil, err
		}
		if c.webhook, err = standardwebhooks.NewWebhook(o.Secret); err != nil {
			return nil, errors.New("the secret is not base64")
		}
	}
	config, err := c.delivery.tlsConfig()
	if err != nil {
		return nil, err
	}
	c.transport = &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: c.delivery.Timeout}).DialContext,
	}
	c.delivery.bound(c.transport, config)
	c.http = &http.Client{
		Transport: c.transport,
		Timeout:   c.delivery.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a signed trigger goes only where it was meant to go
		},
	}
	return c, nil
}

// CheckURL returns an error unless a text can be the address of a relay. The error does not repeat
// it, as it may hold a password.
func CheckURL(text string) error {
	_, err := parseURL(text)
	return err
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("the relay's URL cannot be read: want http://host:port or https://host:port")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, errors.New("the relay's URL is not http://host:port or https://host:port")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the relay's URL must not hold a user, a query or a fragment")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, errors.New("the relay's URL has a port that is not between 1 and 65535")
		}
	}
	return u, nil
}

// Notify announces ids, or asks for a poll if there are none. It returns nil once
// the relay has stored all of them. If they do not fit into one trigger, several
// are sent one after the other. After an error some may not have been stored;
// announcing them again does no harm.
func (c *Client) Notify(ctx context.Context, ids []string) error {
	return split(ids, func(ids []string) error {
		body, err := json.Marshal(newBody(ids))
		if err != nil {
			return fmt.Errorf("encoding a trigger: %w", err)
		}
		return c.post(ctx, body)
	})
}

// Close closes idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// sign gives every attempt a new id and a new time. With the same id a relay that
// answered 503 after it had reserved the id would refuse the next attempt as a
// replay.
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

// split calls send with as many of ids as fit into a trigger, until none are
// left. Without ids it calls send once.
func split(ids []string, send func([]string) error) error {
	for {
		n := Fit(ids)
		if n == 0 && len(ids) > 0 {
			return errBadID // it is longer than a body may be
		}
		if err := send(ids[:n]); err != nil {
			return err
		}
		if ids = ids[n:]; len(ids) == 0 {
			return nil
		}
	}
}

const (
	maxAnswer       = 4 << 10  // bytes of an answer's body that are read
	maxAnswerHeader = 16 << 10 // bytes of its header
	firstWait       = 100 * time.Millisecond
)

// bound sets what a transport may spend on a trigger.
func (d Delivery) bound(t *http.Transport, config *tls.Config) {
	t.TLSClientConfig = config
	t.TLSHandshakeTimeout = d.Timeout
	t.MaxConnsPerHost = 4
	t.MaxIdleConnsPerHost = 1
	t.IdleConnTimeout = 30 * time.Second
	t.MaxResponseHeaderBytes = maxAnswerHeader
	t.DisableCompression = true // an answer is one line; a compressed one could only do harm
}

func (d Delivery) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: d.Insecure, //nolint:gosec // tls_verify=false asks for it
	}
	if d.CA == "" {
		return config, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM([]byte(strings.NewReplacer(`\r`, "", `\n`, "\n").Replace(d.CA))) {
		return nil, errors.New("the CA certificate is not the PEM text of a certificate")
	}
	config.RootCAs = pool
	return config, nil
}

// post sends body until it is accepted, refused with a final status, or the
// attempts are used up.
func (c *Client) post(ctx context.Context, body []byte) error {
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, c.url, body)
	if err != nil {
		return fmt.Errorf("making a trigger: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "cloudtrail-relay")
	if err := c.sign(req.Request, body); err != nil {
		return err
	}
	client := &retryablehttp.Client{
		HTTPClient:   c.http,
		RetryWaitMin: firstWait,
		RetryWaitMax: c.delivery.MaxWait,
		RetryMax:     c.delivery.Retries,
		CheckRetry:   retry,
		Backoff:      backoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		PrepareRetry: func(r *http.Request) error {
			r.Header = r.Header.Clone() // the last attempt may still be using the old one
			return c.sign(r, body)
		},
	}
	resp, err := client.Do(req)
	if resp != nil {
		defer func() { _ = resp.Body.Close() }()
	}
	if err != nil {
		return fmt.Errorf("triggering the relay: %w", err)
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		return fmt.Errorf("triggering the relay: %w", &AnswerError{Status: resp.StatusCode, Reason: reason(resp.Body)})
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // so that the connection can be used again
	return nil
}

func transient(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500
}

func retry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if err != nil || ctx.Err() != nil {
		return retryablehttp.ErrorPropagatedRetryPolicy(ctx, resp, err) // it does not retry after a certificate error
	}
	return transient(resp.StatusCode), nil
}

// backoff returns the time that Retry-After asks for, or one that grows, with
// jitter, and never more than limit.
func backoff(first, limit time.Duration, attempt int, resp *http.Response) time.Duration {
	// An absurd Retry-After overflows to a negative time.
	d := max(retryablehttp.DefaultBackoff(first, limit, attempt, resp), first)
	return min(d+mathrand.N(d/4+1), limit)
}

// reason returns the reason of a refusal if it is fit for a log, and "" otherwise.
func reason(body io.Reader) string {
	data, _ := io.ReadAll(io.LimitReader(body, maxAnswer))
	var a answer
	if json.Unmarshal(data, &a) != nil || len(a.Reason) > 100 || notPrintable(a.Reason) {
		return ""
	}
	return a.Reason
}

// notPrintable reports whether s holds anything but printable ASCII.
func notPrintable(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
}

// answer is the body of a refusal.
type answer struct {
	Reason string `json:"reason"`
}
