// Package cloudtrail is the destination CloudTrail Lake: it maps an entry to the
// event of the audit store, cuts it to the limits that AWS sets, and puts events
// by PutAuditEvents in as few calls as those limits allow.
//
// The limits and error codes are those of AWS's service model of
// cloudtrail-data and of the CloudTrail user guide ("Create an integration with
// an event source outside of AWS", "event schema").
package cloudtrail

import (
	"cmp"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/cloudtraildata"
	"golang.org/x/time/rate"

	"github.com/kong-cloudtrail/relay/internal/awscall"
	"github.com/kong-cloudtrail/relay/internal/verdict"
)

// Options say where events go and how. Config and ChannelARN are required. Package config
// checks what they come from.
type Options struct {
	// Config gives credentials, endpoint and HTTP client. Its Region may be empty:
	// the channel's is taken then. Its retryer is not used: who calls Put decides
	// what is put again, and when.
	Config aws.Config
	// ChannelARN names the channel; its account is the recipient of every event.
	ChannelARN string
	// ExternalID is sent where the channel's policy asks for one. May be empty.
	ExternalID string
	// Hostname is the Admin API's URL as configured. May be empty.
	Hostname string
	// ErrorCodes derives errorCode from a status of 400 and above.
	ErrorCodes bool
	// Rate bounds the calls a second, over all users of the Destination. 0 or less: unbounded.
	Rate float64
}

// Destination delivers entries to one channel. It is safe for concurrent use.
type Destination struct {
	client     *cloudtraildata.Client
	caller     *awscall.Caller
	judge      *verdict.Judge
	turns      *turns
	urgent     bool
	channelARN string
	externalID *string
	mapping    mapping
	bodies     *sync.Pool // of *body
}

// Urgent returns a Destination with the same channel and the same rate, whose
// calls take precedence over those of d.
func (d *Destination) Urgent() *Destination {
	u := *d
	u.urgent = true
	return &u
}

// New returns a Destination. It contacts nothing.
func New(o Options) (*Destination, error) {
	channel, err := arn.Parse(o.ChannelARN)
	if err != nil {
		return nil, fmt.Errorf("setting up CloudTrail: channel ARN %q: %w", o.ChannelARN, err)
	}
	cfg := o.Config
	cfg.Region = cmp.Or(cfg.Region, channel.Region)
	limit := rate.Inf
	if o.Rate > 0 {
		limit = rate.Limit(o.Rate)
	}
	caller, cfg := awscall.New(cfg, service)
	d := &Destination{
		client:     cloudtraildata.NewFromConfig(cfg),
		caller:     caller,
		judge:      new(verdict.Judge),
		turns:      newTurns(limit),
		channelARN: o.ChannelARN,
		mapping:    mapping{account: channel.AccountID, hostname: o.Hostname, errorCodes: o.ErrorCodes},
		bodies:     &sync.Pool{New: func() any { return newBody() }},
	}
	if o.ExternalID != "" {
		d.externalID = &o.ExternalID
	}
	return d, nil
}

// OtherEndpoint returns the endpoint that a configuration names for the service if it
// is not AWS's, else "".
func OtherEndpoint(cfg aws.Config) string {
	return awscall.OtherEndpoint(cloudtraildata.NewFromConfig(cfg).Options().BaseEndpoint)
}
