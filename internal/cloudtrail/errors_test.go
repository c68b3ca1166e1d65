package cloudtrail

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/verdict"
)

// body is the body of an error answer.
func errorBody(code string) string { return `{"__type":"` + code + `","message":"says AWS"}` }

func TestPutClassifiesRefusedCalls(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		header string // X-Amzn-ErrorType
		body   string
		want   string // U: retryable, R: refused with a code that is not known, S: a setting
		code   string
		hint   string
	}{
		{name: "throttling", status: 400, body: errorBody("ThrottlingException"), want: "U", code: "ThrottlingException"},
		{name: "throttling in the header", status: 400, header: "ThrottlingException:http://internal.amazon.com/coral/", want: "U", code: "ThrottlingException"},
		{name: "throttling by code", status: 400, body: `{"code":"Throttling","Message":"slow"}`, want: "U", code: "Throttling"},
		{name: "too many requests", status: 429, want: "U", code: "HTTP429"},
		{name: "request timeout", status: 408, want: "U", code: "HTTP408"},
		{name: "500", status: 500, body: errorBody("InternalFailure"), want: "U", code: "InternalFailure"},
		{name: "502 of a proxy", status: 502, body: "<html>", want: "U", code: "HTTP502"},
		{name: "503", status: 503, header: "ServiceUnavailable", want: "U", code: "ServiceUnavailable"},
		{name: "599", status: 599, want: "U", code: "HTTP599"},

		{name: "no channel", status: 400, body: errorBody("com.amazonaws.cloudtraildata#ChannelNotFound"), want: "S", code: "ChannelNotFound", hint: "list-channels"},
		{name: "bad ARN", status: 400, header: "com.amazonaws#InvalidChannelARN:http://x", want: "S", code: "InvalidChannelARN", hint: "CHANNEL_ARN"},
		{name: "channel's policy", status: 400, body: errorBody("ChannelInsufficientPermission"), want: "S", code: "ChannelInsufficientPermission", hint: "cloudtrail-data:PutAuditEvents"},
		{name: "schema", status: 400, body: errorBody("ChannelUnsupportedSchema"), want: "S", code: "ChannelUnsupportedSchema", hint: "Custom"},
		{name: "unsupported", status: 400, body: errorBody("UnsupportedOperationException"), want: "S", code: "UnsupportedOperationException", hint: "CHANNEL_ARN"},
		{name: "no permission", status: 400, body: errorBody("AccessDeniedException"), want: "S", code: "AccessDeniedException", hint: "cloudtrail-data:PutAuditEvents"},
		{name: "no permission, 403", status: 403, header: "AccessDeniedException", want: "S", code: "AccessDeniedException", hint: "cloudtrail-data:PutAuditEvents"},
		{name: "expired", status: 403, header: "ExpiredTokenException", want: "S", code: "ExpiredTokenException", hint: "expired"},
		{name: "unknown key", status: 403, header: "UnrecognizedClientException", want: "S", code: "UnrecognizedClientException", hint: "AWS_ACCESS_KEY_ID"},
		{name: "signature", status: 403, header: "InvalidSignatureException", want: "S", code: "InvalidSignatureException", hint: "AWS_SECRET_ACCESS_KEY"},
		{name: "signature does not match", status: 403, header: "SignatureDoesNotMatch", want: "S", code: "SignatureDoesNotMatch", hint: "REGION"},
		{name: "no token", status: 403, header: "MissingAuthenticationToken", want: "S", code: "MissingAuthenticationToken", hint: "AWS_ACCESS_KEY_ID"},
		{name: "unknown 403", status: 403, header: "SomethingForbidden", want: "S", code: "SomethingForbidden", hint: "cloudtrail-data:PutAuditEvents"},
		{name: "unknown 401", status: 401, want: "S", code: "HTTP401", hint: "HTTPS_PROXY"},
		{name: "a proxy's 403", status: 403, body: "<html>", want: "U", code: "HTTP403", hint: "HTTPS_PROXY"},
		{name: "a proxy's 407", status: 407, want: "S", code: "HTTP407", hint: "HTTPS_PROXY"},
		{name: "another service", status: 404, body: errorBody("UnknownOperationException"), want: "S", code: "UnknownOperationException", hint: "AWS_ENDPOINT_URL_CLOUDTRAIL_DATA"},
		{name: "https port by http", status: 400, body: "<html>", want: "U", code: "HTTP400", hint: "AWS_ENDPOINT_URL"},
		{name: "redirect", status: 307, want: "S", code: "HTTP307", hint: "AWS_ENDPOINT_URL"},

		{name: "validation", status: 400, body: errorBody("ValidationException"), want: "R", code: "ValidationException"},
		{name: "serialization", status: 400, header: "SerializationException", want: "U", hint: "changes requests", code: "SerializationException"},
		{name: "duplicate", status: 400, body: errorBody("DuplicatedAuditEventId"), want: "R", code: "DuplicatedAuditEventId"},
		{name: "conflict", status: 409, header: "ConflictException", want: "R", code: "ConflictException"},
		{name: "validation of the channel", status: 400, body: `{"__type":"ValidationException","message":"1 validation error detected: Value 'x' at 'channelArn' failed to satisfy constraint"}`, want: "S", code: "ValidationException", hint: "CHANNEL_ARN"},
		{name: "too large for a proxy", status: 413, body: "<html>", want: "U", code: "HTTP413", hint: "HTTPS_PROXY"},
		{name: "400 without a body", status: 400, want: "U", code: "HTTP400", hint: "HTTPS_PROXY"},
		{name: "XML", status: 400, body: "<?xml version=\"1.0\"?><ErrorResponse><Error><Code>ExpiredToken</Code></Error></ErrorResponse>", want: "U", code: "HTTP400"},
		{name: "JSON of a proxy", status: 400, body: `{"error":"Bad Request","detail":"TLS inspection policy"}`, want: "U", code: "HTTP400"},
		{name: "plain text", status: 422, body: "Bad Request", want: "U", code: "HTTP422"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(t, func(w http.ResponseWriter, _ call, _ int) {
				if c.header != "" {
					w.Header().Set("X-Amzn-ErrorType", c.header)
				}
				w.Header().Set("Content-Type", "application/json")
				if strings.HasPrefix(c.body, "<") {
					w.Header().Set("Content-Type", "text/html; charset=utf-8")
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			s := newDestination(t, at(srv.URL))
			verdicts, err := s.Put(t.Context(), entries(2))
			var setting *audit.SettingsError
			isSetting := errors.As(err, &setting)
			switch c.want {
			case "R":
				// Nothing else is accepted, so neither is rejected.
				if !verdict.IsUndecided(err) || statuses(verdicts) != "UU" {
					t.Errorf("%s, %v", statuses(verdicts), err)
				}
			case "S":
				if !isSetting || statuses(verdicts) != "UU" || !strings.Contains(audit.Hint(setting), c.hint) {
					t.Fatalf("%s, %v", statuses(verdicts), err)
				}
			default:
				if err == nil || isSetting || statuses(verdicts) != "UU" || !strings.Contains(audit.Hint(err), c.hint) {
					t.Errorf("%s, %v (%s)", statuses(verdicts), err, audit.Hint(err))
				}
			}
			for _, v := range verdicts {
				if v.Code != c.code {
					t.Errorf("code %q, want %q", v.Code, c.code)
				}
			}
		})
	}
}

func TestPutSaysThatTheClockIsWrong(t *testing.T) {
	for by, want := range map[time.Duration]string{
		time.Hour:       "behind AWS's",
		-time.Hour:      "ahead of AWS's",
		2 * time.Minute: "clock",
	} {
		srv := serve(t, func(w http.ResponseWriter, _ call, _ int) {
			w.Header().Set("Date", time.Now().Add(by).UTC().Format(http.TimeFormat))
			w.Header().Set("X-Amzn-ErrorType", "InvalidSignatureException")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"message":"Signature expired: 20260101T000000Z is now earlier than 20260101T010000Z"}`)
		})
		s := newDestination(t, at(srv.URL))
		_, err := s.Put(t.Context(), entries(1))
		var setting *audit.SettingsError
		if !errors.As(err, &setting) || !strings.Contains(audit.Hint(setting), want) {
			t.Errorf("AWS's clock %v from ours: %v", by, err)
		}
	}
}

// rotating hands out a new key each time that it is asked.
type rotating struct{ asked atomic.Int32 }

func (r *rotating) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: "AKID" + string('0'+r.asked.Add(1)), SecretAccessKey: "s"}, nil
}

func TestPutTriesFreshCredentialsOnce(t *testing.T) {
	for _, c := range []struct {
		name, works string
		ok          bool
	}{
		{"renewed", "AKID2/", true},
		{"not renewed", "AKID3/", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(t, func(w http.ResponseWriter, got call, _ int) {
				if strings.Contains(got.header.Get("Authorization"), c.works) {
					_, _ = io.WriteString(w, got.answer(nil))
					return
				}
				w.Header().Set("X-Amzn-ErrorType", "ExpiredTokenException")
				w.WriteHeader(http.StatusForbidden)
			})
			s := newDestination(t, Options{Config: aws.Config{BaseEndpoint: &srv.URL, Credentials: &rotating{}}})
			verdicts, err := s.Put(t.Context(), entries(2))
			var setting *audit.SettingsError
			if c.ok != (err == nil) || c.ok != (statuses(verdicts) == "AA") || !c.ok && !errors.As(err, &setting) {
				t.Errorf("%s, %v", statuses(verdicts), err)
			}
			if n := len(srv.seen()); n != 2 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

func TestPutWithoutCredentials(t *testing.T) {
	srv := serve(t, acceptAll)
	for _, c := range []struct {
		name    string
		err     error
		setting bool
	}{
		{"none found", &smithy.OperationError{ServiceID: "ec2imds", Err: errors.New("access disabled")}, true},
		{"no instance", &smithy.OperationError{ServiceID: "ec2imds", Err: &net.OpError{Op: "dial", Err: errors.New("no route to host")}}, true},
		{"instance cuts the connection", &smithy.OperationError{ServiceID: "ec2imds", Err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}}, false},
		{"STS unreachable", &smithy.OperationError{ServiceID: "STS", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, false},
		{"no role for the token", &smithy.GenericAPIError{Code: "AccessDenied"}, true},
		{"identity provider silent", &smithy.GenericAPIError{Code: "IDPCommunicationError"}, false},
		{"token file not there yet", &os.PathError{Op: "open", Path: "/var/run/token", Err: os.ErrNotExist}, false},
		{"empty ones", nil, true},
		{"expired sign-in", &smithy.GenericAPIError{Code: "ExpiredTokenException"}, true},
		{"source throttles", &smithy.GenericAPIError{Code: "ThrottlingException"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newDestination(t, Options{Config: aws.Config{BaseEndpoint: &srv.URL, Credentials: aws.CredentialsProviderFunc(
				func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, c.err })}})
			verdicts, err := s.Put(t.Context(), entries(2))
			var setting *audit.SettingsError
			if audit.Hint(err) == "" || audit.IsDestinationError(err) == c.setting || errors.As(err, &setting) != c.setting || statuses(verdicts) != "UU" || verdicts[0].Code != "NoCredentials" {
				t.Errorf("%+v, %v", verdicts, err)
			}
		})
	}
	if n := len(srv.seen()); n != 0 {
		t.Errorf("%d calls", n)
	}
}

func TestPutWithoutAnAnswer(t *testing.T) {
	drop := func(t *testing.T, w http.ResponseWriter, write string) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, write)
		_ = conn.Close()
	}
	const refused = "http://127.0.0.1:1" // a port that no system hands out
	for _, c := range []struct {
		name   string
		answer func(*testing.T, http.ResponseWriter)
		code   string
	}{
		{"connection refused", nil, "Connection"},
		{"connection closed", func(t *testing.T, w http.ResponseWriter) { drop(t, w, "") }, "Connection"},
		{"no HTTP", func(t *testing.T, w http.ResponseWriter) { drop(t, w, "SSH-2.0-x\r\n") }, "Connection"},
		{"answer cut short", func(t *testing.T, w http.ResponseWriter) {
			drop(t, w, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"+`{"successful":[{"id":"e0"},{"id":"e1"}],"fa`)
		}, "BadAnswer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := refused
			if c.answer != nil {
				url = serve(t, func(w http.ResponseWriter, _ call, _ int) { c.answer(t, w) }).URL
			}
			s := newDestination(t, at(url))
			verdicts, err := s.Put(t.Context(), entries(2))
			var setting *audit.SettingsError
			if err == nil || errors.As(err, &setting) || statuses(verdicts) != "UU" || verdicts[1].Code != c.code {
				t.Errorf("%+v, %v", verdicts, err)
			}
		})
	}
}

func TestPutGivesUpWithItsContext(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	srv := serve(t, func(http.ResponseWriter, call, int) {
		close(arrived)
		<-release
	})
	defer close(release)
	s := newDestination(t, at(srv.URL))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	verdicts, err := s.Put(ctx, entries(150))
	if !errors.Is(err, context.Canceled) || statuses(verdicts) != strings.Repeat("U", 150) || verdicts[0].Code != "Canceled" {
		t.Errorf("%+v, %v", verdicts[0], err)
	}
}

func TestPutTimesOut(t *testing.T) {
	release := make(chan struct{})
	srv := serve(t, func(http.ResponseWriter, call, int) { <-release })
	defer close(release)
	client := &http.Client{Timeout: 20 * time.Millisecond}
	s := newDestination(t, Options{Config: aws.Config{BaseEndpoint: &srv.URL, HTTPClient: client}})
	verdicts, err := s.Put(t.Context(), entries(1))
	if err == nil || verdicts[0].Code != "Timeout" {
		t.Errorf("%+v, %v", verdicts, err)
	}
}

func TestPutWithACertificateThatIsNotTrusted(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = nil
	srv.StartTLS()
	defer srv.Close()
	s := newDestination(t, at(srv.URL))
	verdicts, err := s.Put(t.Context(), entries(1))
	var setting *audit.SettingsError
	if !errors.As(err, &setting) || !strings.Contains(audit.Hint(setting), "AWS_CA_BUNDLE") || statuses(verdicts) != "U" {
		t.Errorf("%v, %v", verdicts, err)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name, header, body string
		status             int
		want               string // "" for nil, S for a setting, E for another error
	}{
		{name: "refused for its checksum", status: 200, body: `{"successful":[],"failed":[{"id":"relay-check","errorCode":"InvalidChecksum"}]}`},
		{name: "refused as a whole", status: 400, header: "ValidationException"},
		{name: "accepted", status: 200, body: `{"successful":[{"id":"relay-check"}]}`, want: "E"},
		{name: "throttled", status: 400, header: "ThrottlingException", want: "E"},
		{name: "event throttled", status: 200, body: `{"failed":[{"id":"relay-check","errorCode":"Throttling"}]}`, want: "E"},
		{name: "no channel", status: 400, header: "ChannelNotFound", want: "S"},
		{name: "no permission", status: 403, header: "AccessDeniedException", want: "S"},
		{name: "wrong source", status: 200, body: `{"failed":[{"id":"relay-check","errorCode":"InvalidEventSource"}]}`, want: "S"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(t, func(w http.ResponseWriter, _ call, _ int) {
				if c.header != "" {
					w.Header().Set("X-Amzn-ErrorType", c.header)
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			s := newDestination(t, at(srv.URL))
			err := s.Check(t.Context())
			got := ""
			if audit.NeedsPerson(err) {
				got = "S"
			} else if err != nil {
				got = "E"
			}
			if got != c.want {
				t.Errorf("%v", err)
			}
		})
	}
}
