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

// invokeMost bounds the time to queue an invocation, retries included.
const invokeMost = 5 * time.Second

// invokeSelf invokes the function that it runs in, asynchronously, by the name and Region in the
// variables that Lambda sets. It retries what is retryable within invokeMost, and returns nil
// once Lambda has queued the invocation.
func invokeSelf(ctx context.Context, s *config.Settings, getenv func(string) string, payload any) error {
	in := lambda.InvokeInput{FunctionName: aws.String(getenv("AWS_LAMBDA_FUNCTION_NAME"))}
	if *in.FunctionName == "" {
		return errors.New("invoking this function: AWS_LAMBDA_FUNCTION_NAME is not set")
	}
	// Invoke the same version or alias: arn:aws:lambda:region:account:function:name:qualifier
	if c, ok := lambdacontext.FromContext(ctx); ok {
		if parts := strings.Split(c.InvokedFunctionArn, ":"); len(parts) == 8 {
			in.Qualifier = &parts[7]
		}
	}
	config, err := s.AWSConfig(ctx)
	if err != nil {
		return err
	}
	// The endpoint is that of the Region, in any partition, unless AWS_ENDPOINT_URL_LAMBDA or
	// AWS_ENDPOINT_URL names another.
	client := lambda.NewFromConfig(config, func(o *lambda.Options) {
		o.Region = cmp.Or(getenv("AWS_REGION"), o.Region)
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = time.Second })
	})
	ctx, cancel := context.WithTimeout(ctx, invokeMost)
	defer cancel()
	err = trigger.Invoke(ctx, client, in, payload)
	if answer, ok := errors.AsType[*trigger.AnswerError](err); ok && (answer.Status == http.StatusForbidden || answer.Status == http.StatusNotFound) {
		return audit.NewSettingsError(err, "allow lambda:InvokeFunction on the function to the function's own role")
	}
	return audit.WithHint(err, "make Lambda's endpoint reachable from the function's subnets: a NAT gateway, or an interface endpoint for lambda")
}
