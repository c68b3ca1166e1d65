// Package awscall holds what the clients of AWS in this module share: how a call
// is sent, what its failure means, and which part of AWS's message may be shown.
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

// Timeouts and sizes of a call. The SDK itself waits for an answer without a limit.
const (
	callTimeout   = time.Minute
	headerTimeout = 30 * time.Second
	idlePerHost   = 32
	maxAnswer     = 16 << 20 // bytes; the largest page of a reader has 1 MB

	// maxIdle is how long no call may have been made for a connection to be used again.
	// The network forgets connections (a NAT gateway after 350 s), and those of a
	// process that was frozen may be gone without a sign: a call over one gets no answer.
	maxIdle = 20 * time.Second
)

// Caller makes the calls of one service client. It is safe for concurrent use.
type Caller struct {
	Service
	credentials *credentials // nil: cfg has none
}

// New returns a Caller, and cfg prepared for its service client: one attempt for
// each call, no redirects, bounded waiting, and errors that the Caller understands.
// Endpoints, proxies, CA bundles and credentials stay as cfg has them.
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

// Do makes a call, and once more with fresh credentials if AWS did not take those
// that it was signed with. The SDK has learnt AWS's clock by then.
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

// Explain says what the error of a call means that Do did not make, because the SDK
// repeats it, for example. It returns nil for an error that is not the SDK's.
func (c *Caller) Explain(ctx context.Context, err error) *Failure {
	var (
		op    *smithy.OperationError
		creds *credentialsError
	)
	if !errors.As(err, &op) && !errors.As(err, &creds) {
		return nil
	}
	return c.withoutSecrets(c.explain(ctx, err))
}

// Clean is [Clean], and withholds a text that repeats the credentials.
func (c *Caller) Clean(message string) string {
	if c.echoes(message) {
		return withheld
	}
	return Clean(message)
}

const withheld = "(withheld: it repeats the credentials)"

// withoutSecrets withholds what repeats the credentials that calls are signed with.
func (c *Caller) withoutSecrets(f *Failure) *Failure {
	for _, text := range []*string{&f.Code, &f.Reason} {
		if c.echoes(*text) {
			*text = withheld
		}
	}
	return f
}

// echoes reports whether a text repeats the credentials that calls are signed with.
func (c *Caller) echoes(text string) bool {
	if c.credentials == nil {
		return false
	}
	v := c.credentials.last.Load()
	return v != nil && (v.SecretAccessKey != "" && strings.Contains(text, v.SecretAccessKey) || v.SessionToken != "" && strings.Contains(text, v.SessionToken))
}

// httpClient returns a client with the transport that the configuration made,
// which knows AWS_CA_BUNDLE. Any other client is used as it is.
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
		// A signature holds for one host, and a session token must not go to another.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// transport sends requests whose bodies have no WriteTo method, and bounds answers.
//
// The SDK closes a request's body as soon as the head of the answer is there.
// WriteTo of such a body then returns io.EOF, which net/http takes for a failed
// write: it closes the connection, and an answer of more than a few kilobytes is
// cut short. What it confirms has been accepted by then and would be put twice.
type transport struct {
	next *http.Transport
	now  func() time.Time

	mu   sync.Mutex
	used time.Time // when a call was last made or answered
}

// dropIdle closes the idle connections if they have been idle for too long, and notes
// that the others are in use. It goes by the wall clock: the other one may stand still
// while a process is frozen.
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

// credentials marks the failures of a provider, so that a call that failed
// without credentials differs from one whose connection failed.
type credentials struct {
	cache *aws.CredentialsCache
	had   atomic.Bool // whether the provider has ever given any
	last  atomic.Pointer[aws.Credentials]
}

// credentialsError is the failure to get credentials.
type credentialsError struct {
	err error
	had bool
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
