package awscall

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/restjson"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Service says what the failures of one AWS service mean.
type Service struct {
	Name       string            // for messages: CloudTrail
	Endpoint   string            // the variable that names another endpoint
	Permission string            // the hint where a permission is missing
	Codes      map[string]string // the service's own error codes that a person must act on, and the hint of each
	Passing    map[string]bool   // the service's own error codes that end without anybody's doing
	Parameters map[string]string // parameters that come from a setting, as messages name them, and the hint of each
}

// Kind sorts failures by what to do next.
type Kind uint8

// Kinds.
const (
	Retryable Kind = iota // a later call may succeed
	Settings              // a person must act first
	Refused               // AWS refused the call with a code that may be about what is in it
	TooLarge              // the call has more in it than AWS, or something on the way, takes
)

// Failure is what the error of a call means. It holds no secret and no payload:
// the SDK's error, which may quote both, is kept only for errors.Is.
type Failure struct {
	Kind   Kind
	Code   string // AWS's, or a word of ours where AWS gave none
	Reason string // for a person
	Hint   string
	// Whole: the failure has nothing to do with what is in the call.
	Whole bool
	// Answered: something answered, perhaps because of what is in the call.
	Answered bool
	// Foreign: the answer has no error code, so it is not AWS's.
	Foreign bool

	service string
	status  int
	cause   error
}

func (f *Failure) Error() string {
	if f.status != 0 {
		return fmt.Sprintf("%s answered %s (HTTP status %d): %s", f.service, f.Code, f.status, f.Reason)
	}
	return fmt.Sprintf("calling %s: %s", f.service, f.Reason)
}

// Is reports whether the call failed with target: context.Canceled, for example.
func (f *Failure) Is(target error) bool { return errors.Is(f.cause, target) }

// Err returns the failure as the error that a destination returns.
func (f *Failure) Err() error {
	switch {
	case f == nil:
		return nil
	case f.Kind == Settings:
		return audit.Settings(f, f.Hint)
	}
	var err error = f
	if f.Whole {
		err = &audit.DestinationError{Err: f}
	}
	if f.Hint != "" {
		err = audit.WithHint(err, f.Hint)
	}
	return err
}

// Hints that all services share.
const (
	hintCredentials = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones), or run the relay with AWS_PROFILE or a role; `aws sts get-caller-identity` shows what is in use"
	hintSource      = "the source of the credentials does not answer: look at the role's endpoint (STS, the instance's or the container's metadata, the identity provider) and at the way there"
	hintRole        = "the role is not given to the relay: look at its trust policy and at the identity token"
	hintExpired     = "the session has expired and was not renewed: sign in again, or renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or run the relay with a role"
	hintSignature   = "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID, or REGION is not the Region of the endpoint, or this machine's clock is wrong"
	hintClock       = "set this machine's clock, by NTP: AWS takes signatures of the last five minutes only"
	hintThrottled   = "AWS limits the calls of this account and Region: lower --put-rate, find out who else calls, or ask AWS for a higher quota"
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

// staleCodes are those that credentials which were renewed elsewhere, or a
// corrected clock, can cure.
var staleCodes = map[string]bool{
	"ExpiredToken": true, "ExpiredTokenException": true, "UnrecognizedClientException": true, "InvalidClientTokenId": true,
	"InvalidAccessKeyId": true, "InvalidSignatureException": true, "SignatureDoesNotMatch": true,
	"RequestExpired": true, "RequestTimeTooSkewed": true, "RequestInTheFuture": true,
}

// Throttled reports whether a code, of a call or of an event, means that too much was asked.
func Throttled(code string) bool {
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	return throttled
}

// Passing reports whether a code, of a call or of an event, is about a state of
// the service that ends without anybody's doing.
func Passing(code string) bool {
	switch code {
	case "IDPCommunicationError", // STS: the identity provider does not answer it
		"InternalFailure", "InternalError", "InternalException", "InternalServerError", "InternalServerException",
		"ServiceUnavailable", "ServiceUnavailableException":
		return true
	}
	_, passing := retry.DefaultRetryableErrorCodes[code]
	return passing || Throttled(code)
}

// explain says what the error of a call means.
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
		return s.failure(err, Failure{Code: "Canceled", Reason: "the call was given up: whether AWS accepted it is unknown", Whole: true})
	case errors.As(err, &sent): // the SDK puts an empty answer around it
		return s.explainTransport(sent)
	case errors.As(err, &resp):
		return s.explainAnswer(resp, err)
	}
	// The SDK refused to make the call: an endpoint that does not go with its settings, for example.
	return s.failure(err, Failure{
		Kind: Settings, Code: "NotSent", Reason: Clean(rootText(err)), Whole: true,
		Hint: fmt.Sprintf("check REGION, %s, AWS_ENDPOINT_URL, AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT", s.Endpoint),
	})
}

// CodeHint returns what to do about a code that an event was refused with and that
// may pass, or nothing for any other code.
func CodeHint(code string) string {
	switch {
	case Throttled(code):
		return hintThrottled
	case Passing(code):
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
	return s.failure(err, Failure{Code: "Canceled", Reason: "no time was left for the call", Whole: true})
}

// BadAnswer is the failure of a call whose answer does not say what became of it.
func (s *Service) BadAnswer(err error) *Failure {
	return s.failure(err, Failure{
		Code: "BadAnswer", Reason: "the answer is not one of " + s.Name + ", or was cut short", Answered: true,
		Hint: fmt.Sprintf("something between the relay and AWS answers in its place, or cuts its answers: check HTTPS_PROXY, firewalls, %s and AWS_ENDPOINT_URL", s.Endpoint),
	})
}

// rootText is the text of the innermost error: those around it repeat what is known.
func rootText(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// explainCredentials: a source of credentials that fails may work a moment later.
// One that refuses, or that does not exist, needs a person.
func (s *Service) explainCredentials(e *credentialsError) *Failure {
	f := Failure{Code: "NoCredentials", Whole: true}
	var (
		api    smithy.APIError
		status interface{ HTTPStatusCode() int }
		op     *smithy.OperationError
		dial   *net.OpError
	)
	switch {
	case errors.Is(e.err, context.Canceled):
		f.Reason = "the call was given up before its credentials were there"
	case errors.As(e.err, &status) && (status.HTTPStatusCode() >= 500 || status.HTTPStatusCode() == http.StatusTooManyRequests),
		errors.As(e.err, &api) && Passing(api.ErrorCode()):
		f.Reason, f.Hint = "the source of the credentials failed", hintSource
	case errors.As(e.err, &api) && strings.Contains(api.ErrorCode(), "Expired"):
		f.Kind, f.Reason, f.Hint = Settings, "the credentials have expired", hintExpired
	case errors.As(e.err, &api) && api.ErrorCode() != unknownError:
		f.Kind, f.Reason, f.Hint = Settings, "the source of the credentials answers "+Clean(api.ErrorCode()), hintRole
	case errors.Is(e.err, errNoKeys), errors.Is(e.err, errNoProvider):
		f.Kind, f.Reason, f.Hint = Settings, "there are no credentials", hintCredentials
	case !e.had && errors.As(e.err, &op) && op.ServiceID == "ec2imds" && (!errors.As(e.err, &dial) || dial.Op == "dial"):
		// The last of the SDK's sources: where nothing is set and nobody answers, this is no instance.
		f.Kind, f.Reason, f.Hint = Settings, "no credentials were found", hintCredentials
	default:
		f.Reason, f.Hint = "the source of the credentials does not answer", hintSource
	}
	return s.failure(e, f)
}

// unknownError is the SDK's code for an answer that has none.
const unknownError = "UnknownError"

// answer is what matters of an answer that is not a success.
type answer struct {
	status        int
	code, message string // code is empty if AWS gave none
}

func readAnswer(resp *smithyhttp.ResponseError) answer {
	a := answer{status: resp.HTTPStatusCode()}
	var api smithy.APIError
	if errors.As(resp.Err, &api) && api.ErrorCode() != unknownError {
		a.code, a.message = api.ErrorCode(), api.ErrorMessage()
	}
	if a.code == "" { // a body that is not JSON
		a.code = restjson.SanitizeErrorCode(resp.Response.Header.Get("X-Amzn-ErrorType"))
	}
	a.code = Clean(a.code)
	return a
}

// explainAnswer sorts what came back.
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
		s.explainForeign(&f, resp.Response.Response)
	case Throttled(a.code), a.status == http.StatusTooManyRequests:
		f.Whole, f.Hint = true, hintThrottled
	case Passing(a.code), s.Passing[a.code], a.status >= 500, a.status == http.StatusRequestTimeout:
		f.Hint = hintFailing
	case a.status == http.StatusRequestEntityTooLarge:
		f.Kind = TooLarge
	case a.code == "SerializationException":
		f.Hint = "AWS cannot read what arrives: look for a proxy or firewall that changes requests"
	default:
		if f.Hint = s.hint(a, resp.Response.Response); f.Hint != "" {
			f.Kind, f.Whole = Settings, true
		} else {
			f.Kind = Refused
		}
	}
	return s.failure(err, f)
}

// hint returns the advice for a code that a person must act on, or the empty
// string for a code that is not known to be one.
func (s *Service) hint(a answer, resp *http.Response) string {
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
		// AWS may quote an event, which names whatever its author likes.
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

// explainForeign is for an answer without an error code: it comes from something
// between the relay and AWS, which knows nothing of entries.
func (s *Service) explainForeign(f *Failure, resp *http.Response) {
	f.Code, f.Foreign = fmt.Sprintf("HTTP%d", f.status), true
	between := "something between the relay and AWS answers, or another service"
	host := ""
	if resp.Request != nil {
		host = resp.Request.URL.Host
		if proxy, err := http.ProxyFromEnvironment(resp.Request); err == nil && proxy != nil {
			between = "the proxy " + proxy.Host + " may answer in AWS's place"
		}
	}
	f.Hint = fmt.Sprintf("%s (%s): check HTTPS_PROXY, firewalls, %s and AWS_ENDPOINT_URL", between, host, s.Endpoint)
	switch {
	case f.status == http.StatusTooManyRequests:
		f.Whole = true
	case f.status == http.StatusRequestEntityTooLarge:
		f.Kind = TooLarge
	case f.status < 400, f.status == http.StatusProxyAuthRequired, f.status == http.StatusUnauthorized:
		f.Kind, f.Whole = Settings, true
	}
}

// explainTransport is for a call without an answer.
func (s *Service) explainTransport(sent *smithyhttp.RequestSendError) *Failure {
	var (
		proxy *proxyError
		cert  *tls.CertificateVerificationError
		dns   *net.DNSError
		dial  *net.OpError
		plain tls.RecordHeaderError
		at    *url.Error
		limit interface{ Timeout() bool }
		host  = "the endpoint"
	)
	if errors.As(sent, &at) {
		if u, err := url.Parse(at.URL); err == nil {
			host = u.Host
		}
	}
	f := Failure{
		Code: "Connection", Reason: "the connection to " + host + " failed: whether AWS accepted the call is unknown",
		Hint: "look at what is between the relay and " + host + ": something cuts connections",
	}
	switch {
	case errors.As(sent, &proxy):
		f.Code, f.Reason, f.Whole = "Proxy", proxy.Error(), true
		f.Hint = "let the proxy " + proxy.proxy + " connect to " + host + ", or name another in HTTPS_PROXY, or add the host to NO_PROXY"
		if proxy.status == http.StatusProxyAuthRequired || proxy.status == http.StatusForbidden {
			f.Kind = Settings
		}
	case errors.As(sent, &cert):
		f.Kind, f.Code, f.Whole = Settings, "Certificate", true
		f.Reason, f.Hint = certificate(cert, host)
	case strings.Contains(sent.Error(), "server gave HTTP response to HTTPS client"), errors.As(sent, &plain): // net/http has no type for the first one
		f.Kind, f.Code, f.Reason, f.Whole = Settings, "PlainHTTP", host+" answers without TLS", true
		f.Hint = "what answers there is not AWS: correct " + s.Endpoint + " and AWS_ENDPOINT_URL (http:// for an emulator without TLS), or HTTPS_PROXY"
	case errors.As(sent, &dns):
		f.Code, f.Reason, f.Whole = "Connection", "the name "+dns.Name+" does not resolve", true
		f.Hint = fmt.Sprintf("check REGION, %s, and this machine's name server", s.Endpoint)
	case errors.As(sent, &dial) && (dial.Op == "dial" || dial.Op == "proxyconnect"):
		f.Reason, f.Whole = "no connection to "+host+" ("+dial.Op+")", true
		f.Hint = "check the way to " + host + ": routes, NAT or an interface endpoint, security groups, HTTPS_PROXY"
	case errors.As(sent, &limit) && limit.Timeout():
		f.Code, f.Reason = "Timeout", "no answer from "+host+" in time: whether AWS accepted the call is unknown"
		f.Hint = "look at what is between the relay and " + host + ": something takes the connection and does not answer"
	}
	return s.failure(sent, f)
}

// certificate returns what is wrong with the certificate of a host, and what to do.
func certificate(err *tls.CertificateVerificationError, host string) (reason, hint string) {
	var (
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	const between = "a proxy or firewall that inspects what passes, or an endpoint that is not AWS's own"
	switch {
	case errors.As(err.Err, &name):
		return "the certificate is not for the name " + host,
			"look at AWS_ENDPOINT_URL and at this machine's name server: what answers at that name is " + between
	case errors.As(err.Err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return "the certificate of " + host + " has expired, or is not valid yet",
			fmt.Sprintf("set this machine's clock, or renew the certificate of what answers (%s), which is valid from %s to %s",
				between, invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return "the certificate of " + host + " was not accepted",
		"name the CA that signed it in AWS_CA_BUNDLE, if " + between + ", is meant to answer there"
}

// maxSkew is how far off a clock may be before it explains a refused signature:
// AWS refuses from five minutes on, and Date is as old as the answer.
const maxSkew = 4 * time.Minute

// skew compares this machine's clock with the one of an answer.
func skew(resp *http.Response) (string, bool) {
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return "", false
	}
	switch d := time.Since(at).Round(time.Second); {
	case d > maxSkew:
		return d.String() + " ahead of", true
	case d < -maxSkew:
		return (-d).String() + " behind", true
	}
	return "", false
}
