package lambdahost

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
)

// selfInvoker invokes the function that it runs in, asynchronously. It is safe
// for concurrent use.
type selfInvoker struct {
	function    string // its name
	region      string
	endpoint    string // without a slash at the end
	credentials func(ctx context.Context) (aws.CredentialsProvider, error)
	signer      *v4.Signer
	http        *http.Client
}

// newSelfInvoker reads the function's name and Region from the variables that
// Lambda sets. AWS_ENDPOINT_URL_LAMBDA and AWS_ENDPOINT_URL name another endpoint,
// such as that of a VPC.
func newSelfInvoker(s *config.Settings, getenv func(string) string) *selfInvoker {
	i := &selfInvoker{
		function: getenv("AWS_LAMBDA_FUNCTION_NAME"), region: getenv("AWS_REGION"), signer: v4.NewSigner(),
		credentials: func(ctx context.Context) (aws.CredentialsProvider, error) {
			c, err := s.AWSConfig(ctx)
			return c.Credentials, err
		},
		http: &http.Client{Timeout: 5 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	if i.region == "" {
		i.region = s.Region
	}
	i.endpoint = "https://lambda." + i.region + ".amazonaws.com"
	if strings.HasPrefix(i.region, "cn-") {
		i.endpoint += ".cn"
	}
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_LAMBDA"} {
		if u := getenv(name); u != "" {
			i.endpoint = strings.TrimRight(u, "/")
		}
	}
	return i
}

// invoke returns nil once Lambda has queued an invocation with the payload. It
// retries what is retryable for a second or two.
func (i *selfInvoker) invoke(ctx context.Context, payload any) error {
	if i.function == "" {
		return errors.New("invoking this function: AWS_LAMBDA_FUNCTION_NAME is not set")
	}
	body, err := json.Marshal(payload)
	if err != nil {
		return fmt.Errorf("encoding an invocation: %w", err)
	}
	address := i.endpoint + "/2015-03-31/functions/" + url.PathEscape(i.function) + "/invocations"
	if q := qualifier(ctx); q != "" {
		address += "?Qualifier=" + url.QueryEscape(q)
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, address, body)
	if err != nil {
		return fmt.Errorf("making an invocation: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Amz-Invocation-Type", "Event")
	sum := sha256.Sum256(body)
	sign := func(r *http.Request) error { return i.sign(ctx, r, hex.EncodeToString(sum[:])) }
	if err := sign(req.Request); err != nil {
		return err
	}
	client := &retryablehttp.Client{
		HTTPClient: i.http, RetryWaitMin: 100 * time.Millisecond, RetryWaitMax: time.Second, RetryMax: 3,
		CheckRetry: retryablehttp.DefaultRetryPolicy, Backoff: retryablehttp.DefaultBackoff, PrepareRetry: sign,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("invoking this function: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
	switch resp.StatusCode {
	case http.StatusAccepted:
		return nil
	case http.StatusForbidden, http.StatusNotFound:
		return audit.Settingsf("allow lambda:InvokeFunction on the function to the function's own role",
			"invoking this function: Lambda answered %d", resp.StatusCode)
	}
	return fmt.Errorf("invoking this function: Lambda answered %d", resp.StatusCode)
}

func (i *selfInvoker) sign(ctx context.Context, r *http.Request, hash string) error {
	provider, err := i.credentials(ctx)
	if err != nil {
		return err
	}
	c, err := provider.Retrieve(ctx)
	if err != nil {
		return fmt.Errorf("finding AWS credentials: %w", err)
	}
	if err := i.signer.SignHTTP(ctx, c, r, hash, "lambda", i.region, time.Now()); err != nil {
		return fmt.Errorf("signing an invocation: %w", err)
	}
	return nil
}

// qualifier is the version or alias under which this invocation came, so that the
// next one gets the same program; "" if it came without one.
func qualifier(ctx context.Context) string {
	c, ok := lambdacontext.FromContext(ctx)
	if !ok {
		return ""
	}
	// arn:aws:lambda:region:account:function:name:qualifier
	if parts := strings.Split(c.InvokedFunctionArn, ":"); len(parts) == 8 {
		return parts[7]
	}
	return ""
}
