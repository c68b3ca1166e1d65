package trigger

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const function = "arn:aws:lambda:eu-central-1:123456789012:function:relay:live"

func setCredentials(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
	t.Setenv("AWS_SESSION_TOKEN", "session-token")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
}

func TestLambda(t *testing.T) {
	setCredentials(t)
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
			t.Errorf("%q was accepted", arn)
		}
	}
	if _, err := NewLambda(LambdaOptions{Function: function, Delivery: Delivery{CA: "no PEM"}}); err == nil {
		t.Error("a CA that is not PEM was accepted")
	}
}

// What Lambda answers decides whether the trigger is sent again, and its message
// is not repeated: it can hold the request that was signed.
func TestLambdaRefusals(t *testing.T) {
	setCredentials(t)
	for name, test := range map[string]struct {
		status   int
		code     string
		attempts int32
		final    bool
	}{
		"not allowed":    {403, "AccessDeniedException", 1, true},
		"no function":    {404, "ResourceNotFoundException", 1, true},
		"bad signature":  {403, "InvalidSignatureException", 1, true},
		"throttled":      {429, "TooManyRequestsException", 3, false},
		"failed":         {500, "ServiceException", 3, false},
		"odd code":       {400, strings.Repeat("x", 200), 1, true},
		"code of a line": {400, "a\nb", 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			var attempts atomic.Int32
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				attempts.Add(1)
				w.Header().Set("X-Amzn-ErrorType", test.code)
				w.WriteHeader(test.status)
				fmt.Fprintf(w, `{"message":"canonical request: %s"}`, r.Header.Get("X-Amz-Security-Token"))
			}))
			defer s.Close()
			t.Setenv("AWS_ENDPOINT_URL_LAMBDA", s.URL)
			l, err := NewLambda(LambdaOptions{Function: function, Delivery: fast})
			if err != nil {
				t.Fatal(err)
			}
			err = l.Notify(t.Context(), nil)
			if err == nil || Final(err) != test.final || attempts.Load() != test.attempts {
				t.Fatalf("%v (final: %v) after %d attempts", err, Final(err), attempts.Load())
			}
			if text := err.Error(); strings.Contains(text, "session-token") || strings.Contains(text, "\n") || len(text) > 200 {
				t.Errorf("the error repeats the answer: %s", text)
			}
		})
	}
}

// An endpoint that does not answer costs bounded time, and a CA is trusted for
// Lambda as it is for a relay.
func TestLambdaConnection(t *testing.T) {
	setCredentials(t)
	accepted := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	tls := httptest.NewTLSServer(accepted)
	t.Cleanup(tls.Close)
	hung := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	for name, test := range map[string]struct {
		endpoint, ca string
		ok           bool
	}{
		"trusted": {tls.URL, escapedPEM(tls.Certificate()), true},
		"unknown": {tls.URL, "", false},
		"down":    {"http://127.0.0.1:1", "", false},
		"hung":    {hung, "", false},
	} {
		t.Setenv("AWS_ENDPOINT_URL_LAMBDA", test.endpoint)
		d := fast
		d.CA = test.ca
		if name == "hung" {
			d.Timeout = 200 * time.Millisecond
		}
		l, err := NewLambda(LambdaOptions{Function: function, Delivery: d})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		err = l.Notify(t.Context(), []string{"a1"})
		if (err == nil) != test.ok || Final(err) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > patient {
			t.Errorf("%s: took %v", name, took)
		}
	}
}
