package awscall_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/aws-sdk-go-v2/service/cloudtraildata"
	"github.com/aws/aws-sdk-go-v2/service/cloudtraildata/types"
	"github.com/aws/smithy-go"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
)

var service = awscall.Service{Name: "CloudTrail", Endpoint: "AWS_ENDPOINT_URL_CLOUDTRAIL_DATA"}

func static(token string) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret", SessionToken: token}, nil
	})
}

// put makes one call of n events of a kilobyte.
func put(t *testing.T, cfg aws.Config, n int) (*cloudtraildata.PutAuditEventsOutput, *awscall.Failure) {
	t.Helper()
	caller, cfg := awscall.New(cfg, service)
	return putBy(t, caller, cloudtraildata.NewFromConfig(cfg), n)
}

func putBy(t *testing.T, caller *awscall.Caller, client *cloudtraildata.Client, n int) (out *cloudtraildata.PutAuditEventsOutput, f *awscall.Failure) {
	t.Helper()
	in := &cloudtraildata.PutAuditEventsInput{ChannelArn: aws.String("arn:aws:cloudtrail:us-east-1:123456789012:channel/x")}
	for i := range n {
		in.AuditEvents = append(in.AuditEvents, types.AuditEvent{Id: aws.String(fmt.Sprintf("e%d", i)), EventData: aws.String(strings.Repeat("x", 1000))})
	}
	f = caller.Do(t.Context(), func(ctx context.Context) (err error) {
		out, err = client.PutAuditEvents(ctx, in)
		return err
	})
	return out, f
}

// The SDK by itself loses the end of about every twentieth answer of this size.
func TestAnswersAreNotCut(t *testing.T) {
	var answer strings.Builder
	answer.WriteString(`{"failed":[],"successful":[`)
	for i := range 100 {
		if i > 0 {
			answer.WriteByte(',')
		}
		fmt.Fprintf(&answer, `{"id":"e%d","eventID":%q}`, i, strings.Repeat("a", 200))
	}
	answer.WriteString(`]}`)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, answer.String())
	}))
	defer srv.Close()
	caller, cfg := awscall.New(aws.Config{Region: "us-east-1", BaseEndpoint: &srv.URL, Credentials: static("")}, service)
	client := cloudtraildata.NewFromConfig(cfg)
	for i := range 400 {
		out, f := putBy(t, caller, client, 100)
		if f != nil || len(out.Successful) != 100 {
			t.Fatalf("call %d: %v", i, f)
		}
	}
}

// What listens at a wrong port says what it is.
func TestEndpointThatDoesNotSpeakHTTP(t *testing.T) {
	for answer, want := range map[string]string{
		"":                                "failed",
		"-ERR unknown command 'POST'\r\n": "not HTTP",
		"\x15\x03\x01\x00\x02\x02\x46":    "TLS only",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // what is left of it would reset the connection
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}))
		_, f := put(t, aws.Config{Region: "us-east-1", BaseEndpoint: &srv.URL, Credentials: static("token")}, 1)
		srv.Close()
		if f == nil || !strings.Contains(f.Reason, want) || !strings.Contains(f.Hint, "AWS_ENDPOINT_URL") {
			t.Errorf("%+v", f)
		}
	}
}

func TestEndpointWithoutTLS(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	address := strings.Replace(srv.URL, "http:", "https:", 1)
	_, f := put(t, aws.Config{Region: "us-east-1", BaseEndpoint: &address, Credentials: static("token")}, 1)
	if f == nil || f.Kind != awscall.Settings || f.Code != "PlainHTTP" {
		t.Errorf("%+v", f)
	}
}

func TestNoRedirects(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the call went elsewhere, with its session token")
	}))
	defer elsewhere.Close()
	srv := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	_, f := put(t, aws.Config{Region: "us-east-1", BaseEndpoint: &srv.URL, Credentials: static("token")}, 1)
	if f == nil || f.Kind != awscall.Settings || f.Code != "HTTP307" {
		t.Errorf("%+v", f)
	}
}

// What AWS echoes of a request does not leave with the error.
func TestEchoesStayOut(t *testing.T) {
	const token = "FwoGZXIvYXdzSECRETTOKEN"
	for name, answer := range map[string]string{
		"canonical request": `{"__type":"SignatureDoesNotMatch","message":"The request signature we calculated does not match.\n\nThe Canonical String for this request should have been\n'POST\nx-amz-security-token:` + token + `'"}`,
		"payload":           `{"__type":"SomethingNew","message":"Invalid event {\"password\":\"hunter2\"}"}`,
		"in the code":       `{"__type":"` + token + `{hunter2","message":"x"}`,
		"as the code":       `{"__type":"` + token + `","message":"x"}`,
		"part of the code":  `{"__type":"Bad` + token + `Exception","message":"x"}`,
		"a code of words":   `{"__type":"password hunter2","message":"x"}`,
		"in a sentence":     `{"__type":"SomethingNew","message":"the token ` + token + ` is bad"}`,
		"not JSON":          `<html>` + token + ` hunter2`,
		"half JSON":         `{"message":"hunter2 ` + token,
	} {
		for _, status := range []int{200, 400, 403, 500} {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, answer)
			}))
			_, f := put(t, aws.Config{Region: "us-east-1", BaseEndpoint: &srv.URL, Credentials: static(token)}, 1)
			srv.Close()
			if f == nil {
				continue // a 200 whose JSON says nothing
			}
			for _, text := range []string{f.Error(), f.Err().Error(), f.Reason, f.Hint, fmt.Sprintf("%v %+v", f.Err(), f.Err())} {
				if strings.Contains(text, "hunter2") || strings.Contains(text, token) {
					t.Errorf("%s, status %d: %s", name, status, text)
				}
			}
		}
	}
}

func TestProxyIsNamed(t *testing.T) {
	for status, kind := range map[int]awscall.Kind{
		http.StatusForbidden: awscall.Settings, http.StatusProxyAuthRequired: awscall.Settings,
		http.StatusBadGateway: awscall.Retryable, http.StatusNotFound: awscall.Retryable,
	} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodConnect {
				t.Errorf("%s in clear", r.Method)
			}
			w.WriteHeader(status)
		}))
		at, err := url.Parse(proxy.URL)
		if err != nil {
			t.Fatal(err)
		}
		at.User = url.UserPassword("user", "hunter2")
		client := awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) { tr.Proxy = http.ProxyURL(at) })
		_, f := put(t, aws.Config{Region: "us-east-1", HTTPClient: client, Credentials: static("")}, 1)
		proxy.Close()
		if f == nil || f.Kind != kind || !strings.Contains(f.Error(), at.Host) || !strings.Contains(f.Hint, "HTTPS_PROXY") ||
			strings.Contains(f.Error()+f.Hint, "hunter2") {
			t.Errorf("%d: %v", status, f)
		}
	}
}

func TestNameThatDoesNotResolve(t *testing.T) {
	endpoint := "http://cloudtrail-data.nowhere-1.invalid"
	_, f := put(t, aws.Config{Region: "nowhere-1", BaseEndpoint: &endpoint, Credentials: static("")}, 1)
	if f == nil || f.Kind != awscall.Retryable || !strings.Contains(f.Hint, "REGION") || !audit.IsDestinationError(f.Err()) {
		t.Errorf("%v: %+v", f, f)
	}
}

func TestNoProvider(t *testing.T) {
	_, f := put(t, aws.Config{Region: "us-east-1"}, 1)
	if f == nil || f.Kind != awscall.Settings || !strings.Contains(f.Hint, "AWS_PROFILE") {
		t.Errorf("%v", f)
	}
}

// A source that worked before is expected to work again.
func TestCredentialsThatAreGoneForAMoment(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Amzn-ErrorType", "ExpiredTokenException") // so that they are asked for again
		w.WriteHeader(http.StatusForbidden)
	}))
	defer srv.Close()
	noInstance := &smithy.OperationError{ServiceID: "ec2imds", OperationName: "GetMetadata", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}
	for _, cause := range []error{errors.New("the connection was cut"), noInstance} {
		n := 0
		provider := aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
			if n++; n > 1 {
				return aws.Credentials{}, cause
			}
			return static("").Retrieve(ctx)
		})
		_, f := put(t, aws.Config{Region: "us-east-1", BaseEndpoint: &srv.URL, Credentials: provider}, 1)
		if f == nil || f.Code != "NoCredentials" || f.Kind != awscall.Retryable || !audit.IsDestinationError(f.Err()) || audit.Hint(f.Err()) == "" {
			t.Errorf("%v: %v", cause, f)
		}
	}
	// If nothing has worked before, this is not an instance.
	none := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, noInstance })
	if _, f := put(t, aws.Config{Region: "us-east-1", BaseEndpoint: &srv.URL, Credentials: none}, 1); f == nil || f.Kind != awscall.Settings {
		t.Errorf("no source of credentials: %v", f)
	}
}

// What answers in AWS's place is named by its product, and by nothing that may be a secret.
func TestWhatAnswersIsNamed(t *testing.T) {
	for server, named := range map[string]string{
		"squid/5.7": "squid/5.7 answered HTTP502", "nginx": "nginx answered HTTP502",
		"FwoGZXIvYXdzSECRETTOKENSECRETTOKEN": "something answered HTTP502", "a <b>": "something answered HTTP502",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Server", server)
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "<html>")
		}))
		_, f := put(t, aws.Config{Region: "us-east-1", BaseEndpoint: &srv.URL, Credentials: static("")}, 1)
		srv.Close()
		if f == nil || !strings.Contains(f.Error(), named) || strings.Contains(f.Error()+f.Hint, "SECRET") {
			t.Errorf("%s: %v", server, f)
		}
	}
}

// Credentials that come from a file, or from a session, that is not there.
func TestCredentialsOfAFileThatIsNotThere(t *testing.T) {
	missing := &fs.PathError{Op: "open", Path: "/token", Err: fs.ErrNotExist}
	for name, c := range map[string]struct {
		err    error
		kind   awscall.Kind
		reason string
		hint   string
	}{
		"a token's file":     {fmt.Errorf("failed to retrieve jwt: %w", missing), awscall.Retryable, "open /token", "AWS_WEB_IDENTITY_TOKEN_FILE"},
		"a session of SSO":   {&ssocreds.InvalidTokenError{Err: missing}, awscall.Settings, "SSO session", "aws sso login"},
		"an expired session": {fmt.Errorf("refresh: %w", &ssocreds.InvalidTokenError{}), awscall.Settings, "SSO session", "aws sso login"},
	} {
		provider := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, c.err })
		_, f := put(t, aws.Config{Region: "us-east-1", Credentials: provider}, 1)
		if f == nil || f.Kind != c.kind || !strings.Contains(f.Error(), c.reason) || !strings.Contains(f.Hint, c.hint) {
			t.Errorf("%s: %v, hint %q", name, f, f.Hint)
		}
	}
}

// A KMS key that cannot be used is named, whatever the code: it is the one of a missing
// permission, of a bad parameter, or its own.
func TestKeyThatCannotBeUsed(t *testing.T) {
	for _, answer := range []string{
		`{"__type":"AccessDeniedException","message":"The specified KMS key does not exist or is not allowed to be used with Arn"}`,
		`{"__type":"InvalidParameterException","message":"The specified KMS Key Id could not be found."}`,
		`{"__type":"AccessDeniedException","message":"User: arn:aws:sts::111122223333:assumed-role/relay/i-0 is not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:us-east-1:111122223333:key/1"}`,
		`{"__type":"KMSDisabledException"}`,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, answer)
		}))
		_, f := put(t, aws.Config{Region: "us-east-1", BaseEndpoint: &srv.URL, Credentials: static("")}, 1)
		srv.Close()
		if f == nil || f.Kind != awscall.Settings || !strings.Contains(f.Hint, "KMS key") {
			t.Errorf("%s: %v, hint %q", answer, f, f.Hint)
		}
	}
}

// A role whose name has KMS in it is not a key.
func TestRoleNamedAfterKMS(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"AccessDeniedException","message":"User: arn:aws:sts::111122223333:assumed-role/relay-KMS/KMS is not authorized to perform: cloudtrail-data:PutAuditEvents on resource: arn:aws:cloudtrail:us-east-1:111122223333:channel/1"}`)
	}))
	defer srv.Close()
	_, f := put(t, aws.Config{Region: "us-east-1", BaseEndpoint: &srv.URL, Credentials: static("")}, 1)
	if f == nil || strings.Contains(f.Hint, "KMS") {
		t.Errorf("%v, hint %q", f, f.Hint)
	}
}

// An error without a message has the name of its status, not the SDK's word for it.
func TestErrorWithoutMessage(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"SerializationException"}`)
	}))
	defer srv.Close()
	_, f := put(t, aws.Config{Region: "us-east-1", BaseEndpoint: &srv.URL, Credentials: static("")}, 1)
	if f == nil || f.Reason != "Bad Request" {
		t.Errorf("%v", f)
	}
}
