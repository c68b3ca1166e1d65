package lambdahost

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// invokeMost bounds an invocation of the function by itself, with its retries.
const invokeMost = 5 * time.Second

// selfInvoker invokes the function that it runs in, asynchronously. It is safe
// for concurrent use.
type selfInvoker struct {
	function string // its name
	region   string
	settings *config.Settings
}

// newSelfInvoker reads the function's name and Region from the variables that
// Lambda sets.
func newSelfInvoker(s *config.Settings, getenv func(string) string) *selfInvoker {
	return &selfInvoker{function: getenv("AWS_LAMBDA_FUNCTION_NAME"), region: cmp.Or(getenv("AWS_REGION"), s.Region), settings: s}
}

// invoke returns nil once Lambda has queued an invocation with the payload. It
// retries what is retryable for a moment.
func (i *selfInvoker) invoke(ctx context.Context, payload any) error {
	if i.function == "" {
		return errors.New("invoking this function: AWS_LAMBDA_FUNCTION_NAME is not set")
	}
	config, err := i.settings.AWSConfig(ctx)
	if err != nil {
		return err
	}
	// The endpoint is that of the Region in any partition, or what AWS_ENDPOINT_URL_LAMBDA
	// and its kind say.
	client := lambda.NewFromConfig(config, func(o *lambda.Options) {
		o.Region = i.region
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = time.Second })
	})
	in := lambda.InvokeInput{FunctionName: &i.function}
	if q := qualifier(ctx); q != "" {
		in.Qualifier = aws.String(q)
	}
	ctx, cancel := context.WithTimeout(ctx, invokeMost)
	defer cancel()
	err = trigger.Invoke(ctx, client, in, payload)
	if answer, ok := errors.AsType[*trigger.AnswerError](err); ok && (answer.Status == http.StatusForbidden || answer.Status == http.StatusNotFound) {
		return audit.NewSettingsError(err, "allow lambda:InvokeFunction on the function to the function's own role")
	}
	return audit.WithHint(err, "make Lambda's endpoint reachable from the function's subnets: a NAT gateway, or an interface endpoint for lambda")
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
