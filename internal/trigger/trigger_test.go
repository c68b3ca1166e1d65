package trigger

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
)

func TestLoopback(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:8080": true, "127.8.9.1:0": true, "[::1]:8080": true, "localhost:8080": true, "LOCALHOST:1": true,
		"[::ffff:127.0.0.1]:1": true,
		":8080":                false, "0.0.0.0:8080": false, "[::]:8080": false, "10.0.0.1:80": false, "relay:8080": false,
		"127.0.0.1": false, "": false, "localhost.example.com:80": false, "127.0.0.1.example.com:80": false,
	} {
		if got := Loopback(addr); got != want {
			t.Errorf("%q: %v", addr, got)
		}
	}
}

func TestCheckSecret(t *testing.T) {
	for secret, ok := range map[string]bool{
		secretA: true, secretB: true,
		"": false, "whsec_": false, "whsec_hidden": false, "whsec_aGlkZGVu": false, strings.TrimPrefix(secretA, "whsec_"): false,
		"whsec_" + strings.Repeat("QUJD", 22): false,
	} {
		err := CheckSecret(secret)
		if (err == nil) != ok {
			t.Errorf("%q: %v", secret, err)
		}
		if err != nil && len(secret) > len("whsec_") && strings.Contains(err.Error(), strings.TrimPrefix(secret, "whsec_")) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func TestParseInvocation(t *testing.T) {
	b, err := ParseInvocation([]byte(`{"trigger":{"request_ids":["a","b"],"sent_at":"2026-01-02T03:04:05Z"}}`))
	if err != nil || !slices.Equal(b.RequestIDs, []string{"a", "b"}) || b.SentAt.Unix() != 1767323045 {
		t.Errorf("%+v %v", b, err)
	}
	for _, payload := range []string{
		``, `null`, `{}`, `{"trigger":null}`, `{"trigger":{"request_ids":["-"]}}`, `{"schedule":true}`,
		`{"trigger":{}}{}`, `{"trigger":{},"more":1}`, `{"trigger":{"request_ids":["` + strings.Repeat(`a","`, MaxBody) + `"]}}`,
	} {
		if b, err := ParseInvocation([]byte(payload)); err == nil {
			t.Errorf("%.40s: %+v", payload, b)
		}
	}
}

func TestLambda(t *testing.T) {
	const function = "arn:aws:lambda:eu-central-1:123456789012:function:relay:live"
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
	t.Setenv("AWS_SESSION_TOKEN", "")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	var (
		got    *http.Request
		body   []byte
		status = []int{500, 202}
	)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(status[0])
		status = status[1:]
	}))
	defer s.Close()
	t.Setenv("AWS_ENDPOINT_URL_LAMBDA", s.URL)
	l, err := NewLambda(LambdaOptions{Function: function, Delivery: fast})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Notify(t.Context(), []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	if want := "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-central-1%3A123456789012%3Afunction%3Arelay%3Alive/invocations"; got.RequestURI != want {
		t.Errorf("path %s", got.RequestURI)
	}
	if got.Header.Get("X-Amz-Invocation-Type") != "Event" {
		t.Errorf("header %v", got.Header)
	}
	authorization := got.Header.Get("Authorization")
	if !strings.Contains(authorization, "/eu-central-1/lambda/aws4_request") || !strings.Contains(authorization, "x-amz-invocation-type") {
		t.Errorf("authorization %s", authorization)
	}
	b, err := ParseInvocation(body)
	if err != nil || !slices.Equal(b.RequestIDs, []string{"a", "b"}) || time.Since(b.SentAt) > time.Minute {
		t.Errorf("%+v %v", b, err)
	}

	status = []int{403}
	if err := l.Notify(t.Context(), nil); !Final(err) {
		t.Error(err)
	}
}

func TestNewLambdaRefuses(t *testing.T) {
	for _, arn := range []string{
		"", "relay", "arn:aws:lambda:eu-central-1:123456789012:function:", "arn:aws:s3:::bucket",
		"arn:aws:lambda:eu-central-1:1234:function:relay", "arn:aws:lambda:evil.example.com/:123456789012:function:relay",
		"arn:aws.evil/:lambda:eu-central-1:123456789012:function:relay",
	} {
		if _, err := NewLambda(LambdaOptions{Function: arn}); err == nil {
			t.Errorf("%q was taken", arn)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL", "not a URL")
	if _, err := NewLambda(LambdaOptions{Function: "arn:aws:lambda:eu-central-1:123456789012:function:relay"}); err == nil {
		t.Error("an endpoint that is not a URL was taken")
	}
}

// Every partition of the SDK has its endpoints where the SDK looks for them:
// compared with those of a service that is linked for other reasons.
func TestNewLambdaInEveryPartition(t *testing.T) {
	t.Setenv("AWS_ENDPOINT_URL", "")
	t.Setenv("AWS_ENDPOINT_URL_LAMBDA", "")
	for partition, region := range map[string]string{
		"aws": "eu-central-1", "aws-us-gov": "us-gov-west-1", "aws-cn": "cn-north-1", "aws-eusc": "eusc-de-east-1",
		"aws-iso": "us-iso-east-1", "aws-iso-b": "us-isob-east-1", "aws-iso-e": "eu-isoe-west-1", "aws-iso-f": "us-isof-south-1",
	} {
		l, err := NewLambda(LambdaOptions{Function: "arn:" + partition + ":lambda:" + region + ":123456789012:function:relay"})
		if err != nil {
			t.Errorf("%s: %v", partition, err)
			continue
		}
		other, err := cloudtrail.NewDefaultEndpointResolverV2().ResolveEndpoint(t.Context(), cloudtrail.EndpointParameters{Region: &region})
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.Replace(other.URI.String(), "cloudtrail.", "lambda.", 1); !strings.HasPrefix(l.url, want+"/2015-03-31/") {
			t.Errorf("%s: %s, want %s", partition, l.url, want)
		}
	}
}

// What fits is what the handler takes, to the last byte.
func TestFit(t *testing.T) {
	for _, length := range []int{1, 32, 64} {
		ids := make([]string, 40_000)
		for i := range ids {
			ids[i] = strings.Repeat("a", length)
		}
		n := Fit(ids)
		b := newBody(ids[:n])
		data, err := json.Marshal(Invocation{Trigger: &b})
		if err != nil || len(data) > MaxBody || len(data) < MaxBody-envelope-length {
			t.Errorf("%d ids of %d bytes make %d bytes", n, length, len(data))
		}
	}
	if n := Fit(nil); n != 0 {
		t.Errorf("%d of none", n)
	}
}
