package cloudwatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/smithy-go/middleware"
	"golang.org/x/time/rate"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
)

const (
	notFound       = "ResourceNotFoundException"
	readsPerSecond = 4.5    // AWS's quota for FilterLogEvents is 5, by AWS's clock
	readPage       = 10_000 // events: the most that FilterLogEvents gives
	readAttempts   = 8
	readMaxBackoff = 20 * time.Second
)

// readService differs from service in the permission that its calls need.
var readService = awscall.Service{
	Name: service.Name, Endpoint: service.Endpoint, Parameters: service.Parameters,
	Permission: "allow logs:FilterLogEvents on the log group",
	Codes: map[string]string{
		notFound:                    hintGroup,
		"InvalidOperationException": "relay verify can read a log group of the class Standard only",
	},
}

// Reader asks a log stream which events it holds. It keeps AWS's quota of
// FilterLogEvents over all of its users, and is safe for concurrent use.
//
// A page has at most 1 MB and 10,000 events, so some 1,500 events are read by a
// call, and five calls may be made a second. Calls cost nothing by themselves.
// An event becomes visible some seconds after it was accepted.
type Reader struct {
	client *cloudwatchlogs.Client
	caller *awscall.Caller
	group  string
	stream string
}

// NewReader returns a Reader of one log stream. It contacts nothing.
func NewReader(cfg aws.Config, group, stream string) *Reader {
	caller, cfg := awscall.New(cfg, readService)
	turns := turn{rate.NewLimiter(readsPerSecond, 1), caller}
	return &Reader{
		client: cloudwatchlogs.NewFromConfig(cfg, func(o *cloudwatchlogs.Options) {
			o.Retryer = retry.NewStandard(func(s *retry.StandardOptions) {
				s.MaxAttempts, s.MaxBackoff = readAttempts, readMaxBackoff
				s.Retryables = append(slices.Clip(s.Retryables), retry.IsErrorRetryableFunc(cutShort))
			})
			o.APIOptions = append(slices.Clip(o.APIOptions), func(stack *middleware.Stack) error {
				return stack.Finalize.Insert(turns, "Retry", middleware.After)
			})
		}),
		caller: caller, group: group, stream: stream,
	}
}

// cutShort reports whether the end of an answer is missing. The SDK by itself does not retry
// such a call.
func cutShort(err error) aws.Ternary {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}

// turn makes each attempt of a call wait for its turn under AWS's quota.
type turn struct {
	*rate.Limiter
	caller *awscall.Caller
}

// ID implements [middleware.FinalizeMiddleware].
func (turn) ID() string { return "RelayTurn" }

// HandleFinalize implements [middleware.FinalizeMiddleware].
func (t turn) HandleFinalize(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
	if err := t.Wait(ctx); err != nil { // also if the deadline of ctx comes before the turn
		return middleware.FinalizeOutput{}, middleware.Metadata{}, t.caller.Canceled(err)
	}
	return next.HandleFinalize(ctx, in)
}

// Events yields the events that are filed under a time from since to until
// (excluded), Unix seconds, in no order that can be relied on. It yields an event as
// often as it is there, and a line that is not an event of a relay without a UID. It
// holds one page of them. It retries for about a minute what may pass. An error ends
// it: a *[audit.SettingsError] if a person has to act.
//
// An event that was too old or too far ahead when it was put is filed under the time of
// that put: not under its own time, but under a later one, or under an earlier
// one if it was ahead of the clock.
func (r *Reader) Events(ctx context.Context, since, until int64) iter.Seq2[audit.StoredEvent, error] {
	return func(yield func(audit.StoredEvent, error) bool) {
		if err := r.events(ctx, since, until, func(e audit.StoredEvent) bool { return yield(e, nil) }); err != nil {
			yield(audit.StoredEvent{}, fmt.Errorf("reading log events of %s: %w", r.group, err))
		}
	}
}

func (r *Reader) events(ctx context.Context, since, until int64, yield func(audit.StoredEvent) bool) error {
	in := &cloudwatchlogs.FilterLogEventsInput{
		LogGroupName: &r.group, LogStreamNames: []string{r.stream}, Limit: aws.Int32(readPage),
		StartTime: aws.Int64(max(since, 0) * 1000), EndTime: aws.Int64(max(until, 0)*1000 - 1), // includes its end
	}
	if *in.EndTime < *in.StartTime {
		return nil
	}
	given := map[string]bool{}
	for {
		out, err := r.page(ctx, in)
		if err != nil {
			return err
		}
		for i := range out.Events {
			if !yield(audit.ReadStoredEvent([]byte(aws.ToString(out.Events[i].Message)))) {
				return nil
			}
		}
		// A page may be empty, or hold less than was asked for, and still not be the last.
		token := aws.ToString(out.NextToken)
		if token == "" {
			return nil
		}
		if given[token] {
			return errors.New("the same page was given twice")
		}
		given[token] = true
		in.NextToken = &token
	}
}

// page returns a page of events: an empty one, without another after it, if the group has no
// such stream.
func (r *Reader) page(ctx context.Context, in *cloudwatchlogs.FilterLogEventsInput) (*cloudwatchlogs.FilterLogEventsOutput, error) {
	out, failure := r.call(ctx, in)
	if failure != nil && failure.Code == notFound {
		// AWS has one code for a missing group and a missing stream. A stream that was deleted
		// holds nothing, which is a difference and can be repaired.
		group := &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &r.group, Limit: aws.Int32(1), StartTime: aws.Int64(0), EndTime: aws.Int64(1)}
		if _, failure = r.call(ctx, group); failure == nil {
			return &cloudwatchlogs.FilterLogEventsOutput{}, nil
		}
	}
	return out, failure.Err()
}

// call makes one call of FilterLogEvents.
func (r *Reader) call(ctx context.Context, in *cloudwatchlogs.FilterLogEventsInput) (out *cloudwatchlogs.FilterLogEventsOutput, _ *awscall.Failure) {
	failure := r.caller.Do(ctx, func(ctx context.Context) (err error) {
		out, err = r.client.FilterLogEvents(ctx, in)
		if err == nil && out.Events == nil && !awscall.IsFromAWS(out.ResultMetadata) {
			return r.caller.BadAnswer(awscall.ErrForeign) // which would look like an empty stream
		}
		return err
	})
	return out, failure
}
