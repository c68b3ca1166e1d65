package awscall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"regexp"
	"strings"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/restjson"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Service says what the failures of one AWS service mean.
type Service struct {
	Name       string            // for messages: CloudTrail
	Endpoint   string            // the variable that names another endpoint
	Permission string            // the hint where a permission is missing
	Codes      map[string]string // the service's own error codes that a person must act on, and the hint of each
	Transient  map[string]bool   // the service's own error codes whose cause ends by itself: they are retryable
	Parameters map[string]string // parameters that come from a setting, as messages name them, and the hint of each
}

// Kind classifies failures by what to do next.
type Kind uint8

// Kinds.
const (
	Retryable Kind = iota // a later call may succeed
	Settings              // a person must act first
	Refused               // AWS refused the call with a code that may be about its contents
	TooLarge              // the call is larger than AWS, or something on the way, accepts
)

// Failure is what the error of a call means. It holds no secret and no payload:
// the SDK's error, which may quote both, is kept only for errors.Is.
type Failure struct {
	Kind   Kind
	Code   string // AWS's, or a word of ours where AWS gave none
	Reason string // for a person
	Hint   string
	// AnyCall reports that any other call would have failed as well, whatever events it has.
	AnyCall bool
	// Answered reports that there was an answer, so that the cause may be in the call.
	Answered bool
	// NotAWS reports that the answer has no error code, so that it does not come from AWS.
	NotAWS bool

	service string
	status  int
	between string // what answered in AWS's place
	cause   error
}

func (f *Failure) Error() string {
	if f.NotAWS {
		return fmt.Sprintf("calling %s: %s answered %s (%s), which is not from AWS", f.service, f.between, f.Code, f.Reason)
	}
	if f.status != 0 {
		return fmt.Sprintf("%s answered %s (HTTP status %d): %s", f.service, f.Code, f.status, f.Reason)
	}
	return fmt.Sprintf("calling %s: %s", f.service, f.Reason)
}

// Is reports whether the call failed because of target, such as context.Canceled.
func (f *Failure) Is(target error) bool { return errors.Is(f.cause, target) }

// Err returns the failure as the error that a destination returns.
func (f *Failure) Err() error {
	switch {
	case f == nil:
		return nil
	case f.Kind == Settings:
		return audit.NewSettingsError(f, f.Hint)
	}
	var err error = f
	if f.AnyCall {
		err = &audit.DestinationError{Err: f}
	}
	if f.Hint != "" {
		err = audit.WithHint(err, f.Hint)
	}
	return err
}

// Verdict returns the verdict on each event of a call that failed.
func (f *Failure) Verdict() audit.Verdict {
	return audit.Verdict{Code: f.Code, Reason: f.Reason, AnswerLost: !f.AnyCall && !f.Answered || f.Code == badAnswer}
}

// Hints that all services share.
const (
	hintCredentials = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones), or run the relay with AWS_PROFILE or a role; `aws sts get-caller-identity` shows what is in use"
	hintSource      = "the source of the credentials does not answer: look at the role's endpoint (STS, the instance's or the container's metadata, the identity provider) and at the way there"
	hintSSO         = "sign in with `aws sso login`, or run the relay with a role"
	hintFile        = "sign in with `aws sso login` if the profile uses SSO; else make the file readable that AWS_WEB_IDENTITY_TOKEN_FILE or the profile names"
	hintRole        = "the role is not given to the relay: look at its trust policy and at the identity token"
	hintExpired     = "the session has expired and was not renewed: sign in again, or renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or run the relay with a role"
	hintSignature   = "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID, or REGION is not the Region of the endpoint, or this machine's clock is wrong"
	hintClock       = "set this machine's clock, by NTP: AWS takes signatures of the last five minutes only"
	hintThrottled   = "AWS limits the calls of this account and Region: find out who else calls, lower --put-rate (CloudTrail Lake only), or ask AWS for a higher quota"
	hintKey         = "look at the KMS key of what is called: it must be enabled, and its policy must let the service and the relay's role use it"
	hintFailing     = "AWS itself fails: wait, and look at its health dashboard for the Region"
)

// commonCodes are AWS's common errors that a person must act on.
var commonCodes = map[string]string{
	"ExpiredToken":                        hintExpired,
	"ExpiredTokenException":               hintExpired,
	"UnrecognizedClientException":         hintCredentials,
	"InvalidClientTokenId":                hintCredentials,
	"InvalidAccessKeyId":                  hintCredentials,
	"MissingAuthenticationToken":          hintCredentials,
	"MissingAuthenticationTokenException": hintCredentials,
	"IncompleteSignature":                 hintSignature,
	"IncompleteSignatureException":        hintSignature,
	"InvalidSignatureException":           hintSignature,
	"SignatureDoesNotMatch":               hintSignature,
	"RequestExpired":                      hintClock,
	"RequestTimeTooSkewed":                hintClock,
	"RequestInTheFuture":                  hintClock,
}

// deniedCodes are the common errors about a permission.
var deniedCodes = map[string]bool{
	"AccessDenied": true, "AccessDeniedException": true, "NotAuthorized": true, "OptInRequired": true, "UnauthorizedOperation": true,
}

// staleCodes are the codes after which another attempt may succeed, with credentials that
// were renewed elsewhere or with AWS's clock, which the SDK learns from the refusal.
var staleCodes = map[string]bool{
	"ExpiredToken": true, "ExpiredTokenException": true, "UnrecognizedClientException": true, "InvalidClientTokenId": true,
	"InvalidAccessKeyId": true, "InvalidSignatureException": true, "SignatureDoesNotMatch": true,
	"RequestExpired": true, "RequestTimeTooSkewed": true, "RequestInTheFuture": true,
}

// Throttled reports whether a code, of a call or of an event, means throttling.
func Throttled(code string) bool {
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	return throttled
}

// IsTransient reports whether a code of the service, of a call or of an event, is
// retryable: its cause ends by itself.
func (s *Service) IsTransient(code string) bool { return s.Transient[code] || isTransient(code) }

// isTransient is like [Service.IsTransient], for the codes that AWS's services share.
func isTransient(code string) bool {
	switch code {
	case "IDPCommunicationError", // STS: the identity provider does not answer it
		"InternalFailure", "InternalError", "InternalException", "InternalServerError", "InternalServerException",
		"ServiceUnavailable", "ServiceUnavailableException":
		return true
	}
	_, transient := retry.DefaultRetryableErrorCodes[code]
	return transient || Throttled(code)
}

// explain returns what the error of a call means.
func (s *Service) explain(ctx context.Context, err error) *Failure {
	var (
		creds *credentialsError
		resp  *smithyhttp.ResponseError
		sent  *smithyhttp.RequestSendError
		given *Failure
	)
	switch {
	case errors.As(err, &given): // the caller's own, made before the call
		return given
	case errors.As(err, &creds):
		return s.explainCredentials(creds)
	case ctx.Err() != nil:
		return s.failure(err, Failure{Code: "Canceled", Reason: "the call was given up: whether AWS accepted it is unknown", AnyCall: true})
	case errors.As(err, &sent): // before resp, since the SDK wraps it in an empty answer
		return s.explainTransport(sent)
	case errors.As(err, &resp):
		return s.explainAnswer(resp, err)
	}
	// The SDK did not make the call, for example because the endpoint contradicts a setting.
	return s.failure(err, Failure{
		Kind: Settings, Code: "NotSent", Reason: Clean(rootText(err)), AnyCall: true,
		Hint: fmt.Sprintf("check REGION, %s, AWS_ENDPOINT_URL, AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT", s.Endpoint),
	})
}

// CodeHint returns what to do about a retryable code with which an event was refused, or
// the empty string for any other code.
func CodeHint(code string) string {
	switch {
	case Throttled(code):
		return hintThrottled
	case isTransient(code):
		return hintFailing
	}
	return ""
}

func (s *Service) failure(err error, f Failure) *Failure {
	f.service, f.cause = s.Name, err
	return &f
}

// Canceled is the failure of a call that was not made, because ctx ended first.
func (s *Service) Canceled(err error) *Failure {
	return s.failure(err, Failure{Code: "Canceled", Reason: "no time was left for the call", AnyCall: true})
}

// badAnswer is the code of [Service.BadAnswer].
const badAnswer = "BadAnswer"

// BadAnswer is the failure of a call whose answer does not say what became of it.
func (s *Service) BadAnswer(err error) *Failure {
	return s.failure(err, Failure{
		Code: badAnswer, Reason: "the answer is not one of " + s.Name + ", or was cut short", Answered: true,
		Hint: fmt.Sprintf("something between the relay and AWS answers in its place, or cuts its answers: check HTTPS_PROXY, firewalls, %s and AWS_ENDPOINT_URL", s.Endpoint),
	})
}

// ErrForeign is the error of a call whose answer, a success, does not come from AWS but
// from something in between.
var ErrForeign = errors.New("the answer bears no sign of AWS")

// IsFromAWS reports whether a success comes from AWS: it has the id of the request, or the
// content type of AWS's JSON protocols. A proxy, a portal or a mock that answers 200 to
// everything sends neither.
func IsFromAWS(result middleware.Metadata) bool {
	if id, ok := awsmiddleware.GetRequestIDMetadata(result); ok && id != "" {
		return true
	}
	resp, ok := awsmiddleware.GetRawResponse(result).(*smithyhttp.Response)
	return ok && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/x-amz-json-")
}

// rootText returns the text of the innermost error. The errors around it only repeat what is
// known.
func rootText(err error) string {
	for next := err; next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}

// explainCredentials returns what it means that there are no credentials. A source of
// credentials that fails may work a moment later. If it refuses, or if there is none, a
// person must act.
func (s *Service) explainCredentials(e *credentialsError) *Failure {
	f := Failure{Code: "NoCredentials", AnyCall: true}
	var (
		api    smithy.APIError
		status interface{ HTTPStatusCode() int }
		op     *smithy.OperationError
		dial   *net.OpError
		file   *fs.PathError
	)
	switch {
	case errors.Is(e.err, context.Canceled):
		f.Reason = "the call was given up before its credentials were there"
	case errors.As(e.err, &status) && (status.HTTPStatusCode() >= 500 || status.HTTPStatusCode() == http.StatusTooManyRequests),
		errors.As(e.err, &api) && isTransient(api.ErrorCode()):
		f.Reason, f.Hint = "the source of the credentials failed", hintSource
	case errors.As(e.err, &api) && strings.Contains(api.ErrorCode(), "Expired"):
		f.Kind, f.Reason, f.Hint = Settings, "the credentials have expired", hintExpired
	case errors.As(e.err, &api) && api.ErrorCode() != unknownError:
		f.Kind, f.Reason, f.Hint = Settings, "the source of the credentials answers "+Clean(api.ErrorCode()), hintRole
	case errors.As(e.err, new(*ssocreds.InvalidTokenError)):
		f.Kind, f.Reason, f.Hint = Settings, "there is no SSO session, or it has expired", hintSSO
	case errors.As(e.err, &file):
		f.Reason, f.Hint = "the source of the credentials cannot be read: "+Clean(file.Error()), hintFile
	case errors.Is(e.err, errNoKeys), errors.Is(e.err, errNoProvider):
		f.Kind, f.Reason, f.Hint = Settings, "there are no credentials", hintCredentials
	case !e.had && errors.As(e.err, &op) && op.ServiceID == "ec2imds" && (!errors.As(e.err, &dial) || dial.Op == "dial"):
		// The SDK asks the instance's metadata last: no other source is set, and if nothing answers there, this is not an instance.
		f.Kind, f.Reason, f.Hint = Settings, "no credentials were found", hintCredentials
	default:
		f.Reason, f.Hint = "the source of the credentials does not answer", hintSource
	}
	return s.failure(e, f)
}

// unknownError is the SDK's code for an answer without a code, and its message for one without a message.
const unknownError = "UnknownError"

// answer is the part of an error's answer that matters here.
type answer struct {
	status        int
	code, message string // code is empty if AWS gave none
}

// errorCode matches every error code of AWS.
var errorCode = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,79}$`)

func readAnswer(resp *smithyhttp.ResponseError) answer {
	a := answer{status: resp.HTTPStatusCode()}
	var api smithy.APIError
	if errors.As(resp.Err, &api) && api.ErrorCode() != unknownError {
		a.code, a.message = api.ErrorCode(), api.ErrorMessage()
		if a.message == unknownError {
			a.message = ""
		}
	}
	if a.code == "" { // the body may not be JSON
		a.code = restjson.SanitizeErrorCode(resp.Response.Header.Get("X-Amzn-ErrorType"))
	}
	if a.code = strings.TrimSpace(a.code); !errorCode.MatchString(a.code) {
		a.code = "" // AWS does not send such a code
	}
	return a
}

func (s *Service) explainAnswer(resp *smithyhttp.ResponseError, err error) *Failure {
	a := readAnswer(resp)
	if a.status < 300 {
		return s.BadAnswer(err)
	}
	f := Failure{status: a.status, Code: a.code, Reason: Clean(a.message), Answered: true}
	if f.Reason == "" {
		f.Reason = http.StatusText(a.status)
	}
	switch {
	case a.code == "":
		s.explainIntermediary(&f, resp.Response.Response)
	case Throttled(a.code), a.status == http.StatusTooManyRequests:
		f.AnyCall, f.Hint = true, hintThrottled
	case s.IsTransient(a.code), a.status >= 500, a.status == http.StatusRequestTimeout:
		f.Hint = hintFailing
	case a.status == http.StatusRequestEntityTooLarge:
		f.Kind = TooLarge
	case a.code == "SerializationException":
		f.Hint = "AWS cannot read what arrives: look for a proxy or firewall that changes requests"
	default:
		if f.Hint = s.hint(a, resp.Response.Response); f.Hint != "" {
			f.Kind, f.AnyCall = Settings, true
		} else {
			f.Kind = Refused
		}
	}
	return s.failure(err, f)
}

// aboutKey matches what AWS's messages call a KMS key, or an action with one, but no name of a
// role or a user that has KMS in it.
var aboutKey = regexp.MustCompile(`(^|[ (])(KMS([ ,.;:)]|$)|kms:[A-Z])`)

// hint returns what to do about a code that a person must act on, or the empty string for
// a code that is not known to be such a code.
func (s *Service) hint(a answer, resp *http.Response) string {
	if strings.HasPrefix(a.code, "KMS") || aboutKey.MatchString(Clean(a.message)) {
		return hintKey // the code is often the one of a missing permission, or of a bad parameter
	}
	if hint, ok := s.Codes[a.code]; ok {
		return hint
	}
	switch hint := commonCodes[a.code]; hint {
	case "":
	case hintSignature, hintClock:
		if by, ok := skew(resp); ok {
			return fmt.Sprintf("this machine's clock is %s AWS's: set it, by NTP", by)
		}
		if strings.Contains(a.message, "Signature expired") || strings.Contains(a.message, "Signature not yet current") {
			return hintClock
		}
		return hint
	default:
		return hint
	}
	for name, hint := range s.Parameters {
		// AWS may quote an event, whose author can have put any name into it.
		if strings.Contains(a.message, "at '"+name+"' failed to satisfy constraint") || strings.Contains(Clean(a.message), name) {
			return hint
		}
	}
	switch {
	case deniedCodes[a.code], a.status == http.StatusForbidden:
		return s.Permission
	case a.status == http.StatusUnauthorized:
		return hintCredentials
	case a.code == "UnknownOperationException", a.status == http.StatusNotFound, a.status == http.StatusMethodNotAllowed:
		return fmt.Sprintf("what answers is not %s: check REGION, %s and AWS_ENDPOINT_URL", s.Name, s.Endpoint)
	}
	return ""
}
