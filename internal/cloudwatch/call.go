package cloudwatch

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/awscall"
)

const (
	hintGroup  = "create the log group, or name another with --log-group (RELAY_LOG_GROUP) or REGION"
	hintStream = "name another stream with --log-stream (RELAY_LOG_STREAM)"
)

// service says what the error codes of CloudWatch Logs mean.
var service = awscall.Service{
	Name:       "CloudWatch Logs",
	Endpoint:   "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS",
	Permission: "allow logs:PutLogEvents and logs:CreateLogStream on the log group",
	Parameters: map[string]string{"logGroupName": hintGroup, "logStreamName": hintStream},
	// Quotas, another change at the same time, a stream that AWS does not know everywhere yet.
	Transient: map[string]bool{
		"LimitExceededException": true, "ServiceQuotaExceededException": true, "OperationAbortedException": true,
		"ResourceNotFoundException": true,
	},
}

// answer is the body of a successful answer of PutLogEvents. None of its fields is required.
type answer struct {
	NextSequenceToken string         `json:"nextSequenceToken"`
	RejectedEntity    jsontext.Value `json:"rejectedEntityInfo"`
	Rejected          struct {
		TooOldEnd   int  `json:"tooOldLogEventEndIndex"`
		ExpiredEnd  int  `json:"expiredLogEventEndIndex"`
		TooNewStart *int `json:"tooNewLogEventStartIndex"`
	} `json:"rejectedLogEventsInfo"`
	Others jsontext.Value `json:",embed"`

	empty bool // there was no body, or it is null
}

// read decodes the body of a successful answer, which may be empty.
func (a *answer) read(r io.Reader) error {
	*a = answer{}
	d := jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	null := d.PeekKind() == jsontext.KindNull
	err := json.UnmarshalDecode(d, a)
	a.empty = null
	if errors.Is(err, io.EOF) {
		a.empty, err = true, nil
	}
	return err
}

// foreign reports whether the answer looks as if it does not come from AWS: it is empty, or
// has fields but none that AWS sends.
func (a *answer) foreign() bool {
	return a.empty || a.Others != nil && a.NextSequenceToken == "" && a.RejectedEntity == nil && a.rejection(0) == rejection{}
}

// rejection returns which events of a call of n events were left out, by the answer.
func (a *answer) rejection(n int) rejection {
	r := rejection{tooOld: a.Rejected.TooOldEnd, expired: a.Rejected.ExpiredEnd, tooNew: n}
	if a.Rejected.TooNewStart != nil {
		r.tooNew = *a.Rejected.TooNewStart
	}
	return r
}

// rejection says which events of a call that AWS accepted were left out because of their
// time. The events of a call are in order of time, so that these are at its beginning and at
// its end.
type rejection struct {
	tooOld, expired int // events before this index
	tooNew          int // events from this index on
}

// code returns why the event with an index was left out, or the empty string if it was not.
func (r rejection) code(i int) string {
	switch {
	case i < r.tooOld:
		return "TooOld"
	case i < r.expired:
		return "Expired"
	case i >= r.tooNew:
		return "TooNew"
	}
	return ""
}

// putLogEvents makes one call. If AWS says that the stream does not exist, it creates the
// stream and makes the call again.
func (d *Destination) putLogEvents(ctx context.Context, b *body) (rejection, *awscall.Failure) {
	input := &cloudwatchlogs.PutLogEventsInput{
		LogGroupName: &d.group, LogStreamName: &d.stream, LogEvents: []types.InputLogEvent{}, // the events are in the body
	}
	text := append(b.text, bodyEnd...)
	var a answer
	withBody := func(o *cloudwatchlogs.Options) {
		o.APIOptions = append(o.APIOptions, awscall.WithBody(text), awscall.WithAnswer(a.read))
	}
	failure := d.caller.Do(ctx, func(ctx context.Context) error {
		out, err := d.client.PutLogEvents(ctx, input, withBody)
		if missing(err) {
			fromAWS, failure := d.createStream(ctx)
			if failure != nil {
				return failure
			}
			out, err = d.client.PutLogEvents(ctx, input, withBody)
			if missing(err) && !fromAWS {
				return d.caller.BadAnswer(awscall.ErrForeign) // the stream was not created
			}
		}
		switch {
		case errors.As(err, new(*types.DataAlreadyAcceptedException)): // by an earlier try whose answer was lost
			return nil
		case err != nil:
			return err
		case a.foreign() && !awscall.IsFromAWS(out.ResultMetadata):
			return d.caller.BadAnswer(awscall.ErrForeign) // which would count as accepted
		}
		return nil
	})
	return a.rejection(len(b.events)), failure
}

// createStream creates the stream, unless it exists already. fromAWS reports whether the
// answer of a success comes from AWS for certain; that of an emulator may not show it.
func (d *Destination) createStream(ctx context.Context) (fromAWS bool, failure *awscall.Failure) {
	failure = d.caller.Do(ctx, func(ctx context.Context) error {
		out, err := d.client.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &d.group, LogStreamName: &d.stream})
		if errors.As(err, new(*types.ResourceAlreadyExistsException)) {
			fromAWS = true
			return nil
		}
		fromAWS = err == nil && awscall.IsFromAWS(out.ResultMetadata)
		return err
	})
	switch {
	case failure == nil:
	case failure.Code == "ResourceNotFoundException":
		failure.Kind, failure.Hint = awscall.Settings, hintGroup
		failure.Reason = fmt.Sprintf("the log group %s does not exist in %s", d.group, d.region)
	case failure.Kind == awscall.Refused:
		// This says nothing about entries: only the names were sent.
		failure.Kind, failure.Hint = awscall.Settings, hintStream
	}
	return fromAWS, failure
}

func missing(err error) bool { return errors.As(err, new(*types.ResourceNotFoundException)) }

// Check returns an error if events could not be delivered: it tries the log group, the
// credentials and both permissions, and leaves nothing behind but the stream. The event that
// it puts is of 1970, so that AWS refuses it after it has checked everything else.
func (d *Destination) Check(ctx context.Context) error {
	_, failure := d.createStream(ctx)
	if failure == nil {
		message := []byte(`{"eventName":"connection check of the relay"}`)
		var b body
		b.begin(d.bodyBegin, message, 1)
		b.add(event{at: 1}, message)
		_, failure = d.putLogEvents(ctx, &b)
	}
	if failure != nil {
		return fmt.Errorf("checking CloudWatch Logs: %w", failure.Err())
	}
	return nil
}
