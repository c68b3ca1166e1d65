// Package cloudwatch delivers events to a log stream of CloudWatch Logs, for
// accounts that cannot have CloudTrail Lake.
//
// An event is one line of JSON, the same that CloudTrail Lake would get as
// eventData. CloudWatch Logs does not tell repeats apart: a query that must not
// count twice groups by UID.
package cloudwatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Limits of PutLogEvents, by AWS's API reference.
const (
	maxCallBytes  = 1_048_576      // messages in UTF-8, and overhead for each of them
	eventOverhead = 26             // bytes that AWS counts on top of each message
	maxCallEvents = 10_000         // events in a call
	maxCallSpan   = 24 * time.Hour // from the first to the last event of a call
	maxEventBytes = 1_000_000      // "1 MB": the smaller reading of it

	// Events older than 14 days or more than 2 hours ahead are refused. The
	// margins are for clocks that disagree and for the time that a call takes.
	maxAge   = 14*24*time.Hour - time.Hour
	maxAhead = 2*time.Hour - 10*time.Minute
)

// callTimeout bounds one call: the SDK itself waits for an answer for ever.
const callTimeout = 30 * time.Second

// groupName tells whether AWS takes a name for a log group, by its service
// model: 1 to 512 of letters, digits and -._/#.
func groupName(s string) bool {
	return len(s) >= 1 && len(s) <= 512 && strings.IndexFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("-._/#", r)
	}) < 0
}

// streamName does so for a log stream: 1 to 512 of anything but : and *.
func streamName(s string) bool {
	n := utf8.RuneCountInString(s)
	return n >= 1 && n <= 512 && !strings.ContainsAny(s, ":*")
}

// Options say where the events go. Config, Group, Stream and Encode are required.
type Options struct {
	// Config gives credentials, Region, endpoint and HTTP client. Its retryer is
	// not used: who calls Put decides what is put again, and when.
	Config aws.Config
	Group  string // must exist
	Stream string // is made if it is missing
	// Encode returns an entry's event as one line of JSON. It is called once for
	// each put of an entry, from the goroutine that called Put. The id is not
	// used: CloudWatch Logs has no place for it, and the event holds it as UID.
	Encode func(*audit.Entry) (id string, eventData []byte)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Sink puts entries into one log stream. It is safe for concurrent use.
type Sink struct {
	client      *cloudwatchlogs.Client
	credentials aws.CredentialsProvider
	region      string
	group       string
	stream      string
	encode      func(*audit.Entry) (string, []byte)
	now         func() time.Time
}

// New returns a sink. It contacts nothing. Names that AWS would not take are a
// [*audit.SettingsError].
func New(o Options) (*Sink, error) {
	switch {
	case o.Config.Region == "":
		return nil, audit.Settingsf("Set REGION or AWS_REGION.", "no AWS Region for CloudWatch Logs")
	case !groupName(o.Group):
		return nil, audit.Settingsf("A log group's name has 1 to 512 letters, digits and any of . - _ / #.",
			"log group %q is not a name that AWS takes", o.Group)
	case !streamName(o.Stream):
		return nil, audit.Settingsf("A log stream's name has 1 to 512 characters, and neither : nor *.",
			"log stream %q is not a name that AWS takes", o.Stream)
	case o.Encode == nil:
		return nil, errors.New("cloudwatch: Options.Encode is required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Sink{
		client: cloudwatchlogs.NewFromConfig(o.Config, func(c *cloudwatchlogs.Options) {
			c.Retryer = aws.NopRetryer{}
		}),
		credentials: o.Config.Credentials,
		region:      o.Config.Region,
		group:       o.Group,
		stream:      o.Stream,
		encode:      o.Encode,
		now:         o.Now,
	}, nil
}

// event is an entry on its way into a call.
type event struct {
	entry   int // its index in what Put was given
	at      int64
	message string
}

// Put tries once to deliver the entries, in as many calls as the limits ask
// for, and returns a verdict for each. An accepted entry is durable at AWS, also
// when the error is not nil. An error ends the put: the entries after it are
// unresolved. It is a [*audit.SettingsError] where trying again cannot heal it.
//
// CloudWatch Logs takes nothing that is older than 14 days or the group's
// retention, and nothing far ahead. Such an entry is filed under the time at
// which it is put; the event keeps its own eventTime.
func (s *Sink) Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	verdicts := make([]audit.Verdict, len(entries))
	if err := s.haveCredentials(ctx); err != nil {
		return verdicts, err
	}
	now := s.now()
	events := make([]event, len(entries))
	for i := range entries {
		events[i] = event{entry: i, at: filedAt(entries[i].Timestamp, now)}
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })

	var call []event // never more than one call's worth is held encoded
	size := 0
	for _, e := range events {
		_, data := s.encode(&entries[e.entry])
		if len(data) == 0 || len(data) > maxEventBytes {
			verdicts[e.entry] = audit.Verdict{Status: audit.Rejected, Code: "InvalidSize",
				Reason: fmt.Sprintf("an event has 1 to %d bytes, this one has %d", maxEventBytes, len(data))}
			continue
		}
		e.message = string(data)
		cost := len(data) + eventOverhead
		if len(call) > 0 && (size+cost > maxCallBytes || len(call) == maxCallEvents ||
			e.at-call[0].at >= maxCallSpan.Milliseconds()) {
			if err := s.send(ctx, call, verdicts); err != nil {
				return verdicts, err
			}
			clear(call)
			call, size = call[:0], 0
		}
		call = append(call, e)
		size += cost
	}
	if len(call) == 0 {
		return verdicts, nil
	}
	return verdicts, s.send(ctx, call, verdicts)
}

// filedAt is the time, in milliseconds, under which an entry of a Unix second
// is filed: its own where AWS takes that, else now.
func filedAt(second int64, now time.Time) int64 {
	if second < now.Add(-maxAge).Unix() || second > now.Add(maxAhead).Unix() {
		return now.UnixMilli()
	}
	return second * 1000
}

// send puts one call's worth of events. A call that is refused for what is in
// it is halved, until the events that are at fault stand alone.
func (s *Sink) send(ctx context.Context, events []event, verdicts []audit.Verdict) error {
	rejected, err := s.put(ctx, events)
	var refusal *refusedError
	switch {
	case errors.As(err, &refusal) && len(events) == 1:
		verdicts[events[0].entry] = audit.Verdict{Status: audit.Rejected, Code: refusal.code, Reason: refusal.Error()}
		return nil
	case errors.As(err, &refusal):
		half := len(events) / 2
		if err := s.send(ctx, events[:half], verdicts); err != nil {
			return err
		}
		return s.send(ctx, events[half:], verdicts)
	case err != nil:
		note(events, verdicts, err)
		return err
	}

	again := settle(events, rejected, verdicts)
	if len(again) == 0 {
		return nil
	}
	// The group's retention may be shorter than 14 days, and it is known only
	// by what comes back. Nothing that Kong still has is too old to keep.
	now := s.now().UnixMilli()
	for i := range again {
		again[i].at = now
	}
	rejected, err = s.put(ctx, again)
	if err != nil {
		// Even a refusal leaves these unresolved: each was in a call that was taken.
		note(again, verdicts, err)
		return err
	}
	if left := settle(again, rejected, verdicts); len(left) > 0 {
		return fmt.Errorf("putting log events: %d events are filed under the present time, and AWS calls that %s; "+
			"is this machine's clock right?", len(left), rejected.name())
	}
	return nil
}

// settle marks the events of a call that was taken, and returns those that AWS
// left out because of their time.
func settle(events []event, r rejection, verdicts []audit.Verdict) []event {
	var left []event
	for i, e := range events {
		if r.holds(i) {
			verdicts[e.entry] = audit.Verdict{Code: r.name(), Reason: "CloudWatch Logs did not take the event's time"}
			left = append(left, e)
			continue
		}
		verdicts[e.entry] = audit.Verdict{Status: audit.Accepted}
	}
	return left
}

// note leaves a word at each event of a call that failed, for the case that
// it is given up later.
func note(events []event, verdicts []audit.Verdict, err error) {
	for _, e := range events {
		verdicts[e.entry] = audit.Verdict{Code: code(err), Reason: "the call failed before CloudWatch Logs took the event"}
	}
}

// Check finds out whether the sink could deliver, without leaving anything
// behind but the stream: group, credentials, and both permissions. The event
// that it puts is of 1970, which AWS refuses after it has checked all the rest.
func (s *Sink) Check(ctx context.Context) error {
	if err := s.haveCredentials(ctx); err != nil {
		return err
	}
	if err := s.createStream(ctx); err != nil {
		return err
	}
	_, err := s.put(ctx, []event{{at: 1, message: `{"eventName":"connection check of the relay"}`}})
	return err
}
