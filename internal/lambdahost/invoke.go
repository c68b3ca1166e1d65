package lambdahost

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// invokeMost bounds an invocation of the function by itself, with its retries.
const invokeMost = 5 * time.Second

// invokeSelf invokes the function that ctx belongs to, asynchronously, in the same version or
// under the same alias. It returns nil once Lambda has queued the invocation with the payload,
// and retries what is retryable for a moment.
func invokeSelf(ctx context.Context, s *config.Settings, payload any) error {
	c, _ := lambdacontext.FromContext(ctx)
	if c == nil {
		return errors.New("invoking this function: Lambda has not said its ARN")
	}
	function, err := arn.Parse(c.InvokedFunctionArn)
	if err != nil {
		return fmt.Errorf("invoking this function: %w", err)
	}
	config, err := s.AWSConfig(ctx)
	if err != nil {
		return err
	}
	// The endpoint is that of the Region in any partition, or what AWS_ENDPOINT_URL_LAMBDA
	// and its kind say.
	client := lambda.NewFromConfig(config, func(o *lambda.Options) {
		o.Region = function.Region
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = time.Second })
	})
	ctx, cancel := context.WithTimeout(ctx, invokeMost)
	defer cancel()
	err = trigger.Invoke(ctx, client, c.InvokedFunctionArn, payload)
	if answer, ok := errors.AsType[*trigger.AnswerError](err); ok && (answer.Status == http.StatusForbidden || answer.Status == http.StatusNotFound) {
		return audit.NewSettingsError(err, "allow lambda:InvokeFunction on the function to the function's own role")
	}
	return audit.WithHint(err, "make Lambda's endpoint reachable from the function's subnets: a NAT gateway, or an interface endpoint for lambda")
}
