// Package cloudwatch delivers events to a log stream of CloudWatch Logs, for
// accounts that cannot have CloudTrail Lake.
//
// An event is one line of JSON, by default the eventData that CloudTrail Lake would
// get. CloudWatch Logs does not recognize repeats: a query that must not count an event
// twice groups by UID.
package cloudwatch

import (
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
	"github.com/kong-cloudtrail/relay/internal/verdict"
)

// Limits of PutLogEvents, by AWS's API reference.
const (
	maxCallBytes  = 1_048_576      // messages in UTF-8, and overhead for each of them
	eventOverhead = 26             // bytes that AWS counts on top of each message
	maxCallEvents = 10_000         // events in a call
	maxCallSpan   = 24 * time.Hour // from the first to the last event of a call
	maxEventBytes = 1_000_000      // AWS says "1 MB"; this is the smaller meaning

	// AWS refuses events that are older than 14 days or more than 2 hours ahead. The
	// margins are for clocks that differ and for the time that a call takes.
	maxAge   = 14*24*time.Hour - time.Hour
	maxAhead = 2*time.Hour - 10*time.Minute
)

// Limits of a batch, so that it usually becomes one call. Put accepts larger ones, and
// divides them to fit the limits of a call.
const (
	// BatchEntries is the number of entries.
	BatchEntries = maxCallEvents
	// BatchBytes is the size of the entries, by audit.Entry.Size. A call holds 1 MiB of
	// events, and an event is about one and a half times as large as its entry.
	BatchBytes = 600_000
	// FlightBytes is the size of the entries in all calls that are in flight. Three calls
	// keep up with Kong. Each also holds its body of a megabyte: with eight calls the
	// garbage collector would use as much of the processor as everything else.
	FlightBytes = 3 * BatchBytes
)

// Options say where the events go. Config, Group, Stream and Encode are required. Package
// config checks what they come from.
type Options struct {
	// Config gives credentials, Region, endpoint and HTTP client. Its retryer is
	// not used: the caller of Put decides what is put again, and when.
	Config aws.Config
	Group  string // must exist
	Stream string // is created if it does not exist
	// Encode is called once for each put of an entry, from the goroutine that called Put.
	Encode audit.Encode
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Destination puts entries into one log stream. It is safe for concurrent use.
type Destination struct {
	client *cloudwatchlogs.Client
	caller *awscall.Caller
	judge  *verdict.Judge
	region string
	group  string
	stream string
	encode audit.Encode
	now    func() time.Time

	bodyBegin []byte    // the part of a body that comes before the events
	bodies    sync.Pool // of *body
}

// New returns a Destination. It contacts nothing.
func New(o Options) *Destination {
	if o.Now == nil {
		o.Now = time.Now
	}
	caller, cfg := awscall.New(o.Config, service)
	return &Destination{
		client: cloudwatchlogs.NewFromConfig(cfg),
		caller: caller,
		judge:  new(verdict.Judge),
		region: o.Config.Region,
		group:  o.Group,
		stream: o.Stream,
		encode: o.Encode,
		now:    o.Now,

		bodyBegin: bodyBegin(o.Group, o.Stream),
		bodies:    sync.Pool{New: func() any { return new(body) }},
	}
}

// OtherEndpoint returns the endpoint that a configuration names for the service if it
// is not AWS's, else "".
func OtherEndpoint(cfg aws.Config) string {
	return awscall.OtherEndpoint(cloudwatchlogs.NewFromConfig(cfg).Options().BaseEndpoint)
}
