package trigger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
)

// functionARN is the ARN of a Lambda function, with or without a version or
// alias, in any partition: the form that Lambda's API gives for it, which leaves
// the length of names to AWS. The plugin's schema says the same in Lua's patterns.
var functionARN = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^arn:(aws[a-z-]*):lambda:([a-z]+-[a-z0-9-]+-\d+):\d{12}:function:[A-Za-z0-9_-]+(?::[A-Za-z0-9_$-]+)?$`)
})

// dnsSuffix returns the end of the names of a partition's endpoints. The table
// is that of the SDK (internal/endpoints/awsrulesfn), which its core keeps to
// itself; a partition that is newer needs AWS_ENDPOINT_URL_LAMBDA, if its suffix
// is another one.
func dnsSuffix(partition string) string {
	switch partition {
	case "aws-cn":
		return "amazonaws.com.cn"
	case "aws-eusc":
		return "amazonaws.eu"
	case "aws-iso":
		return "c2s.ic.gov"
	case "aws-iso-b":
		return "sc2s.sgov.gov"
	case "aws-iso-e":
		return "cloud.adc-e.uk"
	case "aws-iso-f":
		return "csp.hci.ic.gov"
	}
	return "amazonaws.com" // aws, aws-us-gov
}

// LambdaOptions are the settings of a [Lambda].
type LambdaOptions struct {
	// Function is the function's ARN. Its Region is in it.
	Function string

	Delivery
}

// Lambda rings a relay that runs as a Lambda function: one signed POST for an
// asynchronous invocation (InvocationType Event) with an [Invocation]. It is
// safe for concurrent use.
//
// Credentials come from where the SDK looks for them: environment, container,
// instance. AWS_ENDPOINT_URL_LAMBDA and AWS_ENDPOINT_URL name another endpoint.
type Lambda struct {
	url    string
	region string
	poster *poster
	signer *v4.Signer

	mu          sync.Mutex
	credentials aws.CredentialsProvider // found at the first use
}

// NewLambda checks the options. It contacts nothing.
func NewLambda(o LambdaOptions) (*Lambda, error) {
	m := functionARN().FindStringSubmatch(o.Function)
	if m == nil {
		return nil, errors.New("the Lambda function is not an ARN like arn:aws:lambda:eu-west-1:123456789012:function:name")
	}
	partition, region := m[1], m[2]
	endpoint := "https://lambda." + region + "." + dnsSuffix(partition)
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_LAMBDA"} {
		if s := os.Getenv(name); s != "" {
			u, err := url.Parse(s)
			if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" {
				return nil, fmt.Errorf("%s is not a URL like https://host", name)
			}
			endpoint = strings.TrimSuffix(s, "/")
		}
	}
	p, err := newPoster(o.Delivery)
	if err != nil {
		return nil, err
	}
	// The SDK's own client escapes the colons, and the signature covers the path as it is sent.
	path := "/2015-03-31/functions/" + url.QueryEscape(o.Function) + "/invocations"
	return &Lambda{url: endpoint + path, region: region, poster: p, signer: v4.NewSigner()}, nil
}

// Notify is [Client.Notify] for a function. It returns nil once Lambda has queued the invocation.
func (l *Lambda) Notify(ctx context.Context, ids []string) error {
	return split(ids, func(ids []string) error {
		b := newBody(ids)
		payload, err := json.Marshal(Invocation{Trigger: &b})
		if err != nil {
			return fmt.Errorf("encoding an invocation: %w", err)
		}
		sum := sha256.Sum256(payload)
		hash := hex.EncodeToString(sum[:])
		return l.poster.post(ctx, l.url, payload, func(r *http.Request) error { return l.sign(ctx, r, hash) })
	})
}

// Close drops idle connections.
func (l *Lambda) Close() { l.poster.close() }

func (l *Lambda) sign(ctx context.Context, r *http.Request, hash string) error {
	p, err := l.provider(ctx)
	if err != nil {
		return err
	}
	c, err := p.Retrieve(ctx)
	if err != nil {
		return fmt.Errorf("finding AWS credentials: %w", err)
	}
	r.Header.Set("X-Amz-Invocation-Type", "Event")
	if err := l.signer.SignHTTP(ctx, c, r, hash, "lambda", l.region, time.Now()); err != nil {
		return fmt.Errorf("signing an invocation: %w", err)
	}
	return nil
}

// provider finds where credentials come from; they are cached until they expire.
func (l *Lambda) provider(ctx context.Context) (aws.CredentialsProvider, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.credentials == nil {
		c, err := config.LoadDefaultConfig(ctx, config.WithRegion(l.region))
		if err != nil {
			return nil, fmt.Errorf("loading the AWS configuration: %w", err)
		}
		l.credentials = c.Credentials
	}
	return l.credentials, nil
}
