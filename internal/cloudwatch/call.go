package cloudwatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// refusedError is a call that AWS refused for what is in it. AWS's own message
// is left out: it may quote events.
type refusedError struct {
	code   string
	status int
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("CloudWatch Logs refused it with %s (HTTP status %d)", e.code, e.status)
}

// rejection says which events of a call that was taken were left out because of
// their time. The events of a call are in order of time, so these are the ends.
type rejection struct {
	tooOld, expired int // events before this index
	tooNew          int // events from this index on
}

func (r rejection) holds(i int) bool { return i < max(r.tooOld, r.expired) || i >= r.tooNew }

func (r rejection) name() string {
	switch {
	case r.tooOld > 0:
		return "TooOld"
	case r.expired > 0:
		return "Expired"
	}
	return "TooNew"
}

// put makes one call, and makes the stream first if AWS says that it is missing.
// Its error is a [*refusedError], a [*audit.SettingsError], or one that may heal.
func (s *Sink) put(ctx context.Context, events []event) (rejection, error) {
	input := &cloudwatchlogs.PutLogEventsInput{
		LogGroupName:  &s.group,
		LogStreamName: &s.stream,
		LogEvents:     make([]types.InputLogEvent, len(events)),
	}
	for i := range events {
		input.LogEvents[i] = types.InputLogEvent{Message: &events[i].message, Timestamp: &events[i].at}
	}
	out, err := s.putLogEvents(ctx, input)
	if missing(err) {
		if err := s.createStream(ctx); err != nil {
			return rejection{}, err
		}
		out, err = s.putLogEvents(ctx, input)
	}
	if err != nil {
		return rejection{}, s.explain("putting log events", err)
	}
	r := rejection{tooNew: len(events)}
	if info := out.RejectedLogEventsInfo; info != nil {
		r.tooOld = int(aws.ToInt32(info.TooOldLogEventEndIndex))
		r.expired = int(aws.ToInt32(info.ExpiredLogEventEndIndex))
		if info.TooNewLogEventStartIndex != nil {
			r.tooNew = int(*info.TooNewLogEventStartIndex)
		}
	}
	return r, nil
}

func (s *Sink) putLogEvents(ctx context.Context, input *cloudwatchlogs.PutLogEventsInput) (*cloudwatchlogs.PutLogEventsOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return s.client.PutLogEvents(ctx, input)
}

// createStream makes the stream. One that is there already is as good.
func (s *Sink) createStream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := s.client.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{
		LogGroupName: &s.group, LogStreamName: &s.stream,
	})
	if exists := (*types.ResourceAlreadyExistsException)(nil); err == nil || errors.As(err, &exists) {
		return nil
	}
	if missing(err) {
		return audit.Settingsf("Create the log group, or name another with --log-group (RELAY_LOG_GROUP) or REGION.",
			"log group %s does not exist in %s: %w", s.group, s.region, err)
	}
	err = s.explain("creating log stream "+s.stream, err)
	if refusal := (*refusedError)(nil); errors.As(err, &refusal) {
		// A refusal here says nothing about entries: only the names were sent.
		return audit.Settingsf("Name another stream with --log-stream (RELAY_LOG_STREAM).",
			"creating log stream %s in %s: %w", s.stream, s.group, err)
	}
	return err
}

func missing(err error) bool {
	notFound := (*types.ResourceNotFoundException)(nil)
	return errors.As(err, &notFound)
}

// haveCredentials asks for credentials before a call does: the SDK would report
// their absence in the same words as a lost connection. They are cached by the SDK.
func (s *Sink) haveCredentials(ctx context.Context) error {
	if s.credentials == nil {
		return audit.Settingsf(credentialsHint, "no AWS credentials for CloudWatch Logs")
	}
	_, err := s.credentials.Retrieve(ctx)
	if err != nil && ctx.Err() == nil {
		return audit.Settingsf(credentialsHint, "getting AWS credentials: %w", err)
	}
	if err != nil {
		return fmt.Errorf("getting AWS credentials: %w", err)
	}
	return nil
}

// Hints for whoever runs the relay.
const (
	credentialsHint = "Give the relay a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
	accessHint      = "Allow logs:PutLogEvents and logs:CreateLogStream on the log group."
	endpointHint    = "Check AWS_ENDPOINT_URL_CLOUDWATCH_LOGS and AWS_ENDPOINT_URL: what answers is not CloudWatch Logs."
	signatureHint   = "Check the credentials, and that this machine's clock is right."
)

// settingsHints names the errors that only a person can heal. AWS's services
// share them; each has two spellings.
func settingsHint(code string) string {
	switch code {
	case "AccessDeniedException", "AccessDenied", "NotAuthorized", "OptInRequired":
		return accessHint
	case "UnrecognizedClientException", "InvalidClientTokenId", "MissingAuthenticationTokenException",
		"MissingAuthenticationToken", "ExpiredTokenException", "ExpiredToken":
		return credentialsHint
	case "UnknownOperationException":
		return endpointHint
	case "InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignatureException", "IncompleteSignature",
		"RequestExpired", "RequestTimeTooSkewed":
		return signatureHint
	}
	return ""
}

// explain sorts the error of a call by what is to be done about it.
func (s *Sink) explain(doing string, err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	hint := settingsHint(api.ErrorCode())
	if n := status(err); hint == "" && (n == http.StatusUnauthorized || n == http.StatusForbidden) {
		hint = accessHint
	}
	if hint != "" {
		if c, ok := s.credentials.(interface{ Invalidate() }); ok {
			c.Invalidate() // they may have been replaced since they were cached
		}
		return audit.Settingsf(hint, "%s in log group %s: %w", doing, s.group, err)
	}
	if heals(err) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return &refusedError{code: api.ErrorCode(), status: status(err)}
}

// heals tells whether a later call may succeed, whatever is in it.
func heals(err error) bool {
	for _, r := range retry.DefaultRetryables {
		if v := r.IsErrorRetryable(err); v != aws.UnknownTernary {
			return v.Bool()
		}
	}
	switch code(err) {
	case "LimitExceededException", "ServiceQuotaExceededException", "OperationAbortedException", "ResourceNotFoundException":
		return true // quotas, a change at the same time, a stream that is not everywhere yet
	}
	switch n := status(err); n {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	default:
		// Without a code of its own the answer is not AWS's but that of something
		// on the way, which knows nothing of the events.
		return n < 400 || n >= 500 || code(err) == unknownCode
	}
}

// unknownCode is what the SDK makes of an error answer without a code.
const unknownCode = "UnknownError"

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	var refusal *refusedError
	if errors.As(err, &refusal) {
		return refusal.code
	}
	return "NoAnswer"
}

func status(err error) int {
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}
