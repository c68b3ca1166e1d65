package trigger

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	awsretry "github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"github.com/go-json-experiment/json"
)

// functionARN matches the ARN of a Lambda function, with or without a version or
// an alias, in any partition, and captures its Region. Lambda itself checks the
// length of the name. The plugin's schema says the same in Lua's patterns.
var functionARN = regexp.MustCompile(`^arn:aws[a-z-]*:lambda:([a-z]+-[a-z0-9-]+-\d+):\d{12}:function:[A-Za-z0-9_-]+(?::[A-Za-z0-9_$-]+)?$`)

// LambdaOptions are the settings of a [Lambda].
type LambdaOptions struct {
	// Function is the ARN of the function. Its Region is in it.
	Function string

	Delivery
}

// Lambda sends triggers to a relay that runs as a Lambda function: it invokes the
// function asynchronously with an [Invocation]. It is safe for concurrent use.
//
// Credentials, endpoints and everything else that LambdaOptions does not hold come
// from where the AWS SDK looks for its configuration.
type Lambda struct {
	function string
	region   string
	delivery Delivery
	http     *awshttp.BuildableClient

	mu     sync.Mutex
	client *lambda.Client // made at the first use, because that reads files
}

// NewLambda checks the options and returns a Lambda. It makes no connection.
func NewLambda(o LambdaOptions) (*Lambda, error) {
	m := functionARN.FindStringSubmatch(o.Function)
	if m == nil {
		return nil, errors.New("the Lambda function is not an ARN like arn:aws:lambda:eu-west-1:123456789012:function:name")
	}
	d := o.withDefaults()
	tlsConfig, err := d.tlsConfig()
	if err != nil {
		return nil, err
	}
	client := awshttp.NewBuildableClient().WithTimeout(d.Timeout).WithTransportOptions(func(t *http.Transport) { d.bound(t, tlsConfig) })
	return &Lambda{function: o.Function, region: m[1], delivery: d, http: client}, nil
}

// Notify does what [Client.Notify] does. It returns nil once Lambda has queued the
// invocation.
func (l *Lambda) Notify(ctx context.Context, ids []string) error {
	client, err := l.open(ctx)
	if err != nil {
		return err
	}
	return split(ids, func(ids []string) error {
		b := newBody(ids)
		return Invoke(ctx, client, lambda.InvokeInput{FunctionName: &l.function}, Invocation{Trigger: &b})
	})
}

// Invoke invokes the function that in names, asynchronously and with a payload in JSON. It
// returns nil once Lambda has queued the invocation, and else an [AnswerError] or why there
// was no answer.
func Invoke(ctx context.Context, client *lambda.Client, in lambda.InvokeInput, payload any) (err error) {
	if in.Payload, err = json.Marshal(payload); err != nil {
		return fmt.Errorf("encoding an invocation: %w", err)
	}
	in.InvocationType = types.InvocationTypeEvent
	_, err = client.Invoke(ctx, &in)
	return invokeError(err)
}

func (l *Lambda) open(ctx context.Context) (*lambda.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == nil {
		c, err := config.LoadDefaultConfig(ctx, config.WithRegion(l.region), config.WithHTTPClient(l.http), config.WithRetryer(l.retryer),
			config.WithLogger(logging.Nop{})) // it would write to standard error
		if err != nil {
			return nil, fmt.Errorf("loading the AWS configuration: %w", err)
		}
		l.client = lambda.NewFromConfig(c)
	}
	return l.client, nil
}

func (l *Lambda) retryer() aws.Retryer {
	return awsretry.NewStandard(func(o *awsretry.StandardOptions) {
		o.MaxAttempts = 1 + l.delivery.Retries
		o.MaxBackoff = l.delivery.MaxWait
		o.RateLimiter = ratelimit.None // the sender pauses after a failure
	})
}

// invokeError reduces an error of Lambda's Invoke to the status and the code of the
// answer; it returns nil for nil. The message is dropped: it can repeat the signed
// request, and with it the session's token.
func invokeError(err error) error {
	if err == nil {
		return nil
	}
	answer, ok := errors.AsType[*awshttp.ResponseError](err)
	if !ok || answer.HTTPStatusCode() == 0 { // there was no answer
		if failed, ok := errors.AsType[*url.Error](err); ok {
			err = failed
		}
		return fmt.Errorf("invoking the relay's function: %w", err)
	}
	out := &AnswerError{Status: answer.HTTPStatusCode()}
	if api, ok := errors.AsType[smithy.APIError](err); ok && len(api.ErrorCode()) <= 100 && !notPrintable(api.ErrorCode()) {
		out.Reason = api.ErrorCode()
	}
	return fmt.Errorf("invoking the relay's function: %w", out)
}
