package cloudtrail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/kong-cloudtrail/relay/internal/jsonscan"
)

// Client has, with its input and its output, the shape of the AWS SDK's module
// service/cloudtraildata and returns its kinds of error, so that the module can
// take its place: New builds it, Sink.call uses it, nothing else knows it.
type Client struct {
	url         *url.URL
	region      string
	credentials aws.CredentialsProvider
	signer      *v4.Signer
	http        aws.HTTPClient
}

// PutAuditEventsInput is the input of PutAuditEvents.
type PutAuditEventsInput struct {
	AuditEvents []AuditEvent
	ChannelArn  *string
	ExternalId  *string //nolint:revive // the SDK's name
}

// AuditEvent is an event to put.
type AuditEvent struct {
	EventData         *string
	Id                *string //nolint:revive // the SDK's name
	EventDataChecksum *string
}

// PutAuditEventsOutput is the output of PutAuditEvents.
type PutAuditEventsOutput struct {
	Failed     []ResultErrorEntry
	Successful []AuditEventResultEntry
}

// AuditEventResultEntry is an event that was accepted.
type AuditEventResultEntry struct {
	EventID *string
	Id      *string //nolint:revive // the SDK's name
}

// ResultErrorEntry is an event that was not accepted.
type ResultErrorEntry struct {
	ErrorCode    *string
	ErrorMessage *string
	Id           *string //nolint:revive // the SDK's name
}

const (
	signingName = "cloudtrail-data"
	userAgent   = "kong-cloudtrail-relay"
	// maxAnswer bounds what is read of an answer. One for 100 events with ids of
	// 128 bytes and long error messages is a tenth of it.
	maxAnswer = 1 << 20
)

// NewHTTPClient returns a client for calls to AWS: it keeps connections for 32
// calls in flight, gives up on a call after a minute, and follows no redirect,
// as a signature holds for one host only.
func NewHTTPClient() *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Client{
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           dialer.DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			IdleConnTimeout:       90 * time.Second,
			MaxIdleConns:          64,
			MaxIdleConnsPerHost:   32,
			DisableCompression:    true,
			// A body of 100 events in one write rather than in twenty-five.
			WriteBufferSize: 128 << 10,
			ReadBufferSize:  16 << 10,
		},
	}
}

func newClient(endpoint *url.URL, region string, creds aws.CredentialsProvider, h aws.HTTPClient) *Client {
	if h == nil {
		h = NewHTTPClient()
	}
	c := &Client{region: region, credentials: creds, signer: v4.NewSigner(), http: h}
	if endpoint != nil {
		c.url = endpoint.JoinPath("PutAuditEvents")
	}
	return c
}

// PutAuditEvents makes one attempt at one call. It does not use the input once
// it has returned. The error is a
// *smithy.OperationError around what went wrong: an API error in an HTTP
// response error, a *smithyhttp.RequestSendError, or a
// *smithy.DeserializationError for an answer that is no answer.
func (c *Client) PutAuditEvents(ctx context.Context, in *PutAuditEventsInput) (*PutAuditEventsOutput, error) {
	out, err := c.put(ctx, in)
	if err != nil {
		return nil, &smithy.OperationError{ServiceID: "CloudTrail Data", OperationName: "PutAuditEvents", Err: err}
	}
	return out, nil
}

func (c *Client) put(ctx context.Context, in *PutAuditEventsInput) (*PutAuditEventsOutput, error) {
	p, hash, length := newPayload(in.AuditEvents)
	defer p.release()
	req, err := c.request(ctx, in, p, length)
	if err != nil {
		return nil, err
	}
	creds, err := c.credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("get identity: %w", err)
	}
	if err := c.signer.SignHTTP(ctx, creds, req, hash, signingName, c.region, time.Now().UTC()); err != nil {
		return nil, &v4.SigningError{Err: err}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, &aws.RequestCanceledError{Err: err}
		}
		return nil, &smithyhttp.RequestSendError{Err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := readAnswer(resp)
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		// Whatever could be read of it: the status says enough.
		return nil, &awshttp.ResponseError{
			RequestID:     resp.Header.Get("X-Amzn-Requestid"),
			ResponseError: &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: resp}, Err: parseError(resp, answer)},
		}
	}
	if err == nil {
		var out *PutAuditEventsOutput
		if out, err = parseOutput(answer); err == nil {
			return out, nil
		}
	}
	if ctx.Err() != nil {
		return nil, &aws.RequestCanceledError{Err: err}
	}
	return nil, &smithy.DeserializationError{Err: err}
}

// request builds the request, yet to be signed.
func (c *Client) request(ctx context.Context, in *PutAuditEventsInput, p *payload, length int64) (*http.Request, error) {
	query := url.Values{}
	query.Set("channelArn", aws.ToString(in.ChannelArn))
	if in.ExternalId != nil {
		query.Set("externalId", *in.ExternalId)
	}
	u := *c.url
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(p.traced(ctx), http.MethodPost, u.String(), p.body())
	if err != nil {
		return nil, fmt.Errorf("building the request: %w", err)
	}
	req.ContentLength = length
	// For a connection that the service had closed already: nothing of the body was sent then.
	req.GetBody = func() (io.ReadCloser, error) { return p.body(), nil }
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", userAgent)
	return req, nil
}

// readAnswer reads an answer to its end, so that the connection can be used again.
func readAnswer(resp *http.Response) (string, error) {
	text, err := jsonscan.Read(resp.Body, resp.ContentLength, maxAnswer)
	switch {
	case errors.Is(err, jsonscan.ErrTooLong):
		return text, fmt.Errorf("answer of more than %d bytes", maxAnswer)
	case err != nil:
		return text, fmt.Errorf("reading the answer: %w", err)
	}
	return text, nil
}
