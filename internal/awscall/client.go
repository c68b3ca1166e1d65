// Package awscall holds what the clients of AWS in this module share: how a call
// is sent, what its failure means, and which part of AWS's messages may be shown.
package awscall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// Limits of a call. The SDK itself waits for an answer without a limit.
const (
	callTimeout   = time.Minute
	headerTimeout = 30 * time.Second
	idlePerHost   = 32
	maxAnswer     = 16 << 20 // bytes; the largest page of a reader has 1 MB

	// maxIdle is the time without calls after which idle connections are closed. The
	// network drops connections silently (a NAT gateway after 350 s, or while a process is
	// frozen), and a call over such a connection gets no answer.
	maxIdle = 20 * time.Second
)

// Caller makes the calls of one service client. It is safe for concurrent use.
type Caller struct {
	Service
	credentials *credentials // nil: cfg has none
}

// New returns a Caller, and a copy of cfg for its service client: with one attempt for
// each call, no redirects, bounded waiting, and errors that the Caller understands.
// Endpoints, proxies, CA bundles and credentials are those of cfg.
func New(cfg aws.Config, s Service) (*Caller, aws.Config) {
	c := cfg.Copy()
	c.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	c.HTTPClient = httpClient(cfg.HTTPClient)
	caller := &Caller{Service: s}
	if cfg.Credentials != nil {
		caller.credentials = newCredentials(cfg.Credentials)
		c.Credentials = caller.credentials
	}
	return caller, c
}

// Do makes a call, and returns nil if it succeeded. If AWS refuses the call's signature or
// credentials, Do makes it once more with credentials that are retrieved anew. By then the
// SDK also knows how far AWS's clock is from this machine's.
func (c *Caller) Do(ctx context.Context, call func(context.Context) error) *Failure {
	if c.credentials == nil {
		return c.explainCredentials(&credentialsError{err: errNoProvider})
	}
	for fresh := false; ; fresh = true {
		err := call(ctx)
		if err == nil {
			return nil
		}
		f := c.withoutSecrets(c.explain(ctx, err))
		if fresh || !staleCodes[f.Code] {
			return f
		}
		c.credentials.cache.Invalidate()
	}
}

// Explain returns what the error of a call means that was not made by Do, for example
// because the SDK retries it. It returns nil for an error that is not the SDK's.
func (c *Caller) Explain(ctx context.Context, err error) *Failure {
	if !errors.As(err, new(*smithy.OperationError)) && !errors.As(err, new(*credentialsError)) {
		return nil
	}
	return c.withoutSecrets(c.explain(ctx, err))
}

// Clean is like the function [Clean], and withholds a message that repeats the credentials.
func (c *Caller) Clean(message string) string {
	if c.echoes(message) {
		return withheld
	}
	return Clean(message)
}

const withheld = "(withheld: it repeats the credentials)"

// withoutSecrets withholds the texts of f that repeat the credentials with which calls are
// signed, and returns f.
func (c *Caller) withoutSecrets(f *Failure) *Failure {
	for _, text := range []*string{&f.Code, &f.Reason} {
		if c.echoes(*text) {
			*text = withheld
		}
	}
	return f
}

// echoes reports whether a text repeats the credentials with which calls are signed.
func (c *Caller) echoes(text string) bool {
	if c.credentials == nil {
		return false
	}
	v := c.credentials.last.Load()
	return v != nil && (v.SecretAccessKey != "" && strings.Contains(text, v.SecretAccessKey) || v.SessionToken != "" && strings.Contains(text, v.SessionToken))
}

// httpClient returns a client that uses the transport of an SDK's client, which honours
// AWS_CA_BUNDLE. It returns a client of any other type unchanged.
func httpClient(c aws.HTTPClient) aws.HTTPClient {
	switch b := c.(type) {
	case nil:
		return newHTTPClient(awshttp.NewBuildableClient().GetTransport())
	case *awshttp.BuildableClient:
		return newHTTPClient(b.GetTransport())
	}
	return c
}

func newHTTPClient(t *http.Transport) *http.Client {
	t.ResponseHeaderTimeout = headerTimeout
	t.MaxIdleConnsPerHost = idlePerHost
	t.WriteBufferSize = 16 << 10
	t.DisableCompression = true
	t.OnProxyConnectResponse = func(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return &proxyError{proxy: proxy.Host, status: resp.StatusCode}
		}
		return nil
	}
	return &http.Client{
		Timeout:   callTimeout,
		Transport: &transport{next: t, now: time.Now},
		// A signature is valid for one host, and a session token must not be sent to another.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// transport sends requests whose bodies have no WriteTo method, and bounds the size of
// answers.
//
// The SDK closes a request's body as soon as it has the header of the answer.
// WriteTo of such a body then returns io.EOF, which net/http takes for a failed
// write: it closes the connection, and an answer of more than a few kilobytes is
// cut short. The events that it confirms have been accepted by then, and would be put
// twice.
type transport struct {
	next *http.Transport
	now  func() time.Time

	mu   sync.Mutex
	used time.Time // when a call was last made or answered
}

// dropIdle closes the idle connections if no call was made or answered for maxIdle, and
// notes the time. It uses the wall clock, since the monotonic clock may stand still while a
// process is frozen.
func (t *transport) dropIdle() {
	now := t.now().Round(0)
	t.mu.Lock()
	idle := now.Sub(t.used)
	t.used = now
	t.mu.Unlock()
	if idle > maxIdle || idle < 0 {
		t.next.CloseIdleConnections()
	}
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.dropIdle()
	defer t.dropIdle()
	if r.Body != nil && r.Body != http.NoBody {
		r = r.WithContext(r.Context()) // a shallow copy
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	return resp, nil
}

// proxyError is a proxy's refusal to connect.
type proxyError struct {
	proxy  string
	status int
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy %s refuses to connect: %d %s", e.proxy, e.status, http.StatusText(e.status))
}

// credentials is a provider that marks the failures of another one, so that a call that
// failed for want of credentials can be told from one whose connection failed.
type credentials struct {
	cache *aws.CredentialsCache
	had   atomic.Bool // the provider has returned credentials before
	last  atomic.Pointer[aws.Credentials]
}

// credentialsError is the failure to get credentials.
type credentialsError struct {
	err error
	had bool // the provider had returned credentials before
}

func (e *credentialsError) Error() string { return "getting credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

func newCredentials(p aws.CredentialsProvider) *credentials {
	cache, ok := p.(*aws.CredentialsCache)
	if !ok {
		cache = aws.NewCredentialsCache(p)
	}
	return &credentials{cache: cache}
}

func (c *credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	v, err := c.cache.Retrieve(ctx)
	if err == nil && !v.HasKeys() {
		err = errNoKeys
	}
	if err != nil {
		return aws.Credentials{}, &credentialsError{err: err, had: c.had.Load()}
	}
	c.had.Store(true)
	c.last.Store(&v)
	return v, nil
}

var (
	errNoProvider = errors.New("no provider of credentials")
	errNoKeys     = errors.New("no access key")
)
