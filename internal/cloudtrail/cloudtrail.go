// Package cloudtrail is the sink that delivers entries to CloudTrail Lake: it
// maps an entry to the event of the audit store, cuts it to the limits that AWS
// sets, and puts events by PutAuditEvents in as few calls as those limits allow.
//
// The limits and error codes are those of AWS's service model of
// cloudtrail-data and of the CloudTrail user guide ("Create an integration with
// an event source outside of AWS", "event schema").
package cloudtrail

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"golang.org/x/time/rate"
)

// DefaultRate is the number of calls a second that stays safely under AWS's
// quota of 100 for an account and Region, bursts included.
const DefaultRate = 92

// Options say where events go and how. ChannelARN and Credentials are required.
type Options struct {
	// ChannelARN names the channel; its account is the recipient of every event.
	ChannelARN string
	// ExternalID is sent where the channel's policy asks for one. May be empty.
	ExternalID string
	// Region of the channel. Empty: the one in ChannelARN.
	Region string
	// Endpoint is the base URL of the service. Empty: AWS_ENDPOINT_URL_CLOUDTRAIL_DATA,
	// then AWS_ENDPOINT_URL, then AWS's own for the Region.
	Endpoint string
	// Credentials sign each call. A provider that is not a cache is wrapped in one.
	Credentials aws.CredentialsProvider
	// HTTPClient sends the calls. Nil: NewHTTPClient().
	HTTPClient aws.HTTPClient
	// Hostname is the Admin API's URL as configured; a user and password in it are
	// left out. May be empty.
	Hostname string
	// ErrorCodes derives errorCode from a status of 400 and above.
	ErrorCodes bool
	// Rate bounds the calls a second, over all users of the Sink. 0 or less: unbounded.
	Rate float64
	// Getenv reads the variables that Endpoint names. Nil: os.Getenv.
	Getenv func(string) string
}

// Sink delivers entries to one channel. It is safe for concurrent use.
type Sink struct {
	client      *Client
	credentials *credentials
	turns       *turns
	urgent      bool
	channelARN  string
	externalID  *string
	endpoint    string
	mapping     mapping
	batches     *sync.Pool    // of *batch
	taken       *atomic.Int64 // when AWS last accepted a call, Unix nanoseconds
}

// Urgent returns a Sink to the same channel, under the same rate, whose calls go
// before those of s.
func (s *Sink) Urgent() *Sink {
	u := *s
	u.urgent = true
	return &u
}

var (
	accountPattern    = regexp.MustCompile(`^[0-9]{12}$`)
	externalIDPattern = regexp.MustCompile(`^[\w+=,.@:/-]+$`)
)

// New checks the options, all of them, and returns a Sink. It contacts nothing.
func New(o Options) (*Sink, error) {
	var problems []error
	channel, err := arn.Parse(o.ChannelARN)
	switch {
	case err != nil:
		problems = append(problems, fmt.Errorf("channel ARN %q: expected arn:aws:cloudtrail:<region>:<account>:channel/<id>", o.ChannelARN))
	case !accountPattern.MatchString(channel.AccountID):
		problems = append(problems, fmt.Errorf("channel ARN %q: account %q is not 12 digits", o.ChannelARN, channel.AccountID))
	}
	region := o.Region
	if region == "" {
		region = channel.Region
	}
	if region == "" && err == nil {
		problems = append(problems, errors.New("no Region, and none in the channel ARN"))
	}
	if o.ExternalID != "" && (len(o.ExternalID) < 2 || len(o.ExternalID) > 1224 || !externalIDPattern.MatchString(o.ExternalID)) {
		problems = append(problems, errors.New(`external ID: expected 2 to 1224 of letters, digits and _+=,.@:/-`))
	}
	if o.Credentials == nil {
		problems = append(problems, errors.New("no credentials provider"))
	}
	endpoint, err := resolveEndpoint(o, channel.Partition, region)
	if err != nil {
		problems = append(problems, err)
	}
	hostname, err := withoutUserinfo(o.Hostname)
	if err != nil {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("setting up CloudTrail: %w", errors.Join(problems...))
	}

	limit := rate.Inf
	if o.Rate > 0 {
		limit = rate.Limit(o.Rate)
	}
	creds := newCredentials(o.Credentials)
	s := &Sink{
		client:      newClient(endpoint, region, creds, o.HTTPClient),
		credentials: creds,
		turns:       newTurns(limit),
		taken:       new(atomic.Int64),
		channelARN:  o.ChannelARN,
		endpoint:    endpoint.String(),
		mapping:     mapping{account: channel.AccountID, hostname: hostname, errorCodes: o.ErrorCodes},
	}
	if o.ExternalID != "" {
		s.externalID = &o.ExternalID
	}
	s.batches = &sync.Pool{New: func() any { return &batch{index: make(map[string]int, maxEvents)} }}
	return s, nil
}

// resolveEndpoint does what the SDK does for a service client.
func resolveEndpoint(o Options, partition, region string) (*url.URL, error) {
	getenv := o.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	from, endpoint := "endpoint", o.Endpoint
	if endpoint == "" && !strings.EqualFold(getenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"), "true") {
		for _, name := range []string{"AWS_ENDPOINT_URL_CLOUDTRAIL_DATA", "AWS_ENDPOINT_URL"} {
			if v := getenv(name); v != "" {
				from, endpoint = name, v
				break
			}
		}
	}
	if endpoint == "" {
		suffix := "amazonaws.com"
		if partition == "aws-cn" {
			suffix = "amazonaws.com.cn"
		}
		endpoint = "https://cloudtrail-data." + region + "." + suffix
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%s: expected a URL such as https://cloudtrail-data.us-east-1.amazonaws.com", from)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}, nil
}

// withoutUserinfo leaves a URL as it was configured, but for a user and password.
func withoutUserinfo(s string) (string, error) {
	if !strings.Contains(s, "@") {
		return s, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", errors.New("hostname: not a URL") // the error would show the password
	}
	if u.User == nil {
		return s, nil
	}
	u.User = nil
	return u.String(), nil
}

// credentials marks the failures of a provider, so that a call that failed for
// want of credentials can be told from one that failed on its way.
type credentials struct {
	provider interface {
		aws.CredentialsProvider
		Invalidate()
	}
}

// credentialsError is the failure to get any credentials.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "getting credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

func newCredentials(p aws.CredentialsProvider) *credentials {
	c := &credentials{}
	switch p := p.(type) {
	case nil:
	case *aws.CredentialsCache:
		c.provider = p
	default:
		c.provider = aws.NewCredentialsCache(p)
	}
	return c
}

func (c *credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	v, err := c.provider.Retrieve(ctx)
	if err == nil && !v.HasKeys() {
		err = errors.New("no access key")
	}
	if err != nil {
		return aws.Credentials{}, &credentialsError{err}
	}
	return v, nil
}

var _ aws.HTTPClient = (*http.Client)(nil)
