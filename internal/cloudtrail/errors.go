package cloudtrail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// kind sorts failures of a call by what is to be done.
type kind uint8

const (
	heals    kind = iota // try again later
	settings             // a person has to act
	content              // it is about the events
)

// failure is what a call's error comes to.
type failure struct {
	kind     kind
	code     string // AWS's, or a word of ours where AWS said nothing
	reason   string
	hint     string // where kind is settings
	answered bool   // the service answered, and with something that may be due to the events
}

// eventSettings are the failures of an event that are none of the event's.
var eventSettings = map[string]string{
	"AccountNotSubscribed": "the account that owns the channel does not take events of this source: check CHANNEL_ARN, and that the channel has an event data store",
	"InvalidRecipient":     "the account in CHANNEL_ARN is not the one that owns the channel: take the ARN from `aws cloudtrail list-channels` in that account",
	"InvalidEventSource":   "the channel does not take events of the source kong-gateway: CHANNEL_ARN must name a channel of the type Custom",
}

const (
	hintChannel     = "CHANNEL_ARN must be the ARN of an existing channel, of the type Custom, in the Region that is called: `aws cloudtrail list-channels --region <region>` shows them"
	hintPermission  = "allow cloudtrail-data:PutAuditEvents on the ARN of the channel to the user or role of the relay, and in the channel's own policy if it belongs to another account"
	hintCredentials = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones), or run the relay with a profile or a role; `aws sts get-caller-identity` shows what is in use"
	hintExpired     = "the session has expired and could not be refreshed: sign in again, or renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or run the relay with a role"
	hintSignature   = "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID, or REGION is not the Region of the endpoint: set them again"
	hintExternalID  = "the channel's policy may ask for an external ID: set the one that it names"
)

// callSettings are the codes of a call that a person has to do something about.
var callSettings = map[string]string{
	"ChannelNotFound":                        hintChannel,
	"ChannelNotFoundException":               hintChannel,
	"InvalidChannelARN":                      hintChannel,
	"InvalidChannelARNException":             hintChannel,
	"ChannelUnsupportedSchema":               hintChannel,
	"ChannelUnsupportedSchemaException":      hintChannel,
	"UnsupportedOperationException":          hintChannel,
	"ChannelInsufficientPermission":          hintPermission + "; " + hintExternalID,
	"ChannelInsufficientPermissionException": hintPermission + "; " + hintExternalID,
	"AccessDenied":                           hintPermission,
	"AccessDeniedException":                  hintPermission,
	"NotAuthorized":                          hintPermission,
	"OptInRequired":                          hintPermission,
	"ExpiredToken":                           hintExpired,
	"ExpiredTokenException":                  hintExpired,
	"UnrecognizedClientException":            hintCredentials,
	"InvalidClientTokenId":                   hintCredentials,
	"InvalidAccessKeyId":                     hintCredentials,
	"MissingAuthenticationToken":             hintCredentials,
	"MissingAuthenticationTokenException":    hintCredentials,
	"IncompleteSignature":                    hintSignature,
	"IncompleteSignatureException":           hintSignature,
	"InvalidSignatureException":              hintSignature,
	"SignatureDoesNotMatch":                  hintSignature,
	"RequestExpired":                         hintSignature,
	"RequestTimeTooSkewed":                   hintSignature,
	"RequestInTheFuture":                     hintSignature,
}

// staleCodes are those that credentials which were renewed elsewhere can heal.
var staleCodes = map[string]bool{
	"ExpiredToken": true, "ExpiredTokenException": true, "UnrecognizedClientException": true, "InvalidClientTokenId": true,
	"InvalidAccessKeyId": true, "InvalidSignatureException": true, "SignatureDoesNotMatch": true,
}

// staleCredentials tells whether fresh credentials may heal an error.
func staleCredentials(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && staleCodes[api.ErrorCode()]
}

// healingCode tells whether a code, of a call or of an event, is of a kind that passes.
func healingCode(code string) bool {
	switch code {
	case "InternalFailure", "InternalError", "InternalException", "InternalServerError", "InternalServerException",
		"ServiceUnavailable", "ServiceUnavailableException":
		return true
	}
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	_, passing := retry.DefaultRetryableErrorCodes[code]
	return throttled || passing
}

// classify says what is to be done about a call's error.
func classify(err error, endpoint string) failure {
	var (
		resp  *smithyhttp.ResponseError
		creds *credentialsError
		cert  *tls.CertificateVerificationError
		turn  *turnError
		parse *smithy.DeserializationError
		limit interface{ Timeout() bool }
	)
	switch {
	case errors.As(err, &turn):
		return failure{code: "Canceled", reason: "no time was left for the call"}
	case errors.As(err, &creds):
		return classifyCredentials(creds)
	case errors.As(err, &resp):
		return classifyAnswer(resp, endpoint)
	case errors.As(err, &parse):
		return failure{code: "BadAnswer", reason: clean(parse.Err.Error()), answered: true}
	case errors.As(err, &cert):
		return failure{
			kind: settings, code: "Certificate", reason: "the certificate of the endpoint was not accepted",
			hint: fmt.Sprintf("the certificate of %s was not accepted: if a proxy stands before it, name its CA in AWS_CA_BUNDLE", endpoint),
		}
	case errors.Is(err, context.Canceled):
		return failure{code: "Canceled", reason: "the call was given up: whether it was accepted is not known"}
	case errors.As(err, &limit) && limit.Timeout():
		return failure{code: "Timeout", reason: "no answer in time: whether the call was accepted is not known"}
	}
	return failure{code: "Connection", reason: "the connection failed: whether the call was accepted is not known"}
}

// classifyCredentials: a source of credentials that answers with a failure of its
// own may heal. One that has nothing to give, or is not there, is a setting; and
// where it was only slow to come up, nothing is lost by it.
func classifyCredentials(e *credentialsError) failure {
	f := failure{kind: settings, code: "NoCredentials", reason: "no credentials were found", hint: hintCredentials}
	var api smithy.APIError
	var status interface{ HTTPStatusCode() int }
	switch {
	case errors.Is(e.err, context.Canceled), errors.As(e.err, &api) && healingCode(api.ErrorCode()),
		errors.As(e.err, &status) && (status.HTTPStatusCode() >= 500 || status.HTTPStatusCode() == http.StatusTooManyRequests):
		f.kind, f.reason, f.hint = heals, "the source of the credentials failed", ""
	case errors.As(e.err, &api) && strings.Contains(api.ErrorCode(), "Expired"):
		f.hint = hintExpired
	}
	return f
}

// classifyAnswer sorts the answers that are not a 200.
func classifyAnswer(resp *smithyhttp.ResponseError, endpoint string) failure {
	status := resp.HTTPStatusCode()
	f := failure{code: fmt.Sprintf("HTTP%d", status), reason: http.StatusText(status)}
	var api smithy.APIError
	named := false
	if errors.As(resp.Err, &api) {
		if named = api.ErrorCode() != ""; named {
			f.code = api.ErrorCode()
		}
		if api.ErrorMessage() != "" {
			f.reason = api.ErrorMessage()
		}
	}
	hint, known := callSettings[f.code]
	switch {
	case known:
		f.kind, f.hint = settings, hint
		if by, ok := skew(resp.Response.Response); ok && hint == hintSignature {
			f.hint = fmt.Sprintf("this machine's clock is %s AWS's: set it, by NTP", by)
		}
	case healingCode(f.code) && status < 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
	case status >= 500:
		f.answered = true
	case aboutEvents(status, named, resp.Response.Header.Get("Content-Type")):
		f.kind = content
	case status == http.StatusUnauthorized:
		f.kind, f.hint = settings, hintCredentials
	case status == http.StatusForbidden && named:
		f.kind, f.hint = settings, hintPermission
	default:
		// A redirect, a page that is not there, a proxy that refuses: no word on any event.
		f.kind = settings
		f.hint = fmt.Sprintf("%s does not answer as CloudTrail does (HTTP %d): check REGION, AWS_ENDPOINT_URL_CLOUDTRAIL_DATA, AWS_ENDPOINT_URL and HTTPS_PROXY", endpoint, status)
	}
	return f
}

// aboutEvents tells whether a 4xx that is no known setting may be about the
// events of the call: they are made a dead letter for it, one by one. A 4xx without an
// error code is not AWS's, a page of HTML least of all (an https port that is
// called by http answers so); but what stands between may find a body too large.
func aboutEvents(status int, named bool, contentType string) bool {
	switch status {
	case http.StatusRequestEntityTooLarge:
		return true
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return named || !strings.HasPrefix(contentType, "text/html")
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusProxyAuthRequired:
		return false
	}
	return named && status >= 400 && status < 500
}

// maxSkew is how far off a clock may be, to be the reason of a refused
// signature: AWS refuses from 5 minutes on, and Date is as old as the answer.
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
