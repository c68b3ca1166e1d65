package lambdahost

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) Do(r *http.Request) (*http.Response, error) { return f(r) }

// The function finds Lambda in every partition, and repeats nothing of its answers.
func TestInvoke(t *testing.T) {
	t.Parallel()
	for region, want := range map[string]string{
		"eu-central-1": "lambda.eu-central-1.amazonaws.com", "cn-north-1": "lambda.cn-north-1.amazonaws.com.cn",
		"eusc-de-east-1": "lambda.eusc-de-east-1.amazonaws.eu", "us-iso-east-1": "lambda.us-iso-east-1.c2s.ic.gov",
	} {
		for _, status := range []int{http.StatusAccepted, http.StatusForbidden} {
			host := ""
			s := &config.Settings{}
			s.UseAWS(aws.Config{
				Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "token"),
				HTTPClient: roundTrip(func(r *http.Request) (*http.Response, error) {
					host = r.URL.Host
					return &http.Response{StatusCode: status, Request: r, Header: http.Header{"Content-Type": {"application/json"}},
						Body: io.NopCloser(strings.NewReader(`{"message":"x-amz-security-token:token"}`))}, nil
				}),
			})
			getenv := func(name string) string {
				return map[string]string{"AWS_REGION": region, "AWS_LAMBDA_FUNCTION_NAME": "relay"}[name]
			}
			err := invokeSelf(t.Context(), s, getenv, map[string]bool{"schedule": true})
			switch {
			case host != want:
				t.Errorf("%s: called %s, want %s", region, host, want)
			case status == http.StatusAccepted && err != nil, status == http.StatusForbidden && !audit.NeedsPerson(err):
				t.Errorf("%s: %d: %v", region, status, err)
			case err != nil && strings.Contains(err.Error(), "token"):
				t.Errorf("%s: the error repeats the answer: %v", region, err)
			}
		}
	}
}
