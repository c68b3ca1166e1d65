package secret

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
)

// secretTimeout bounds one reading of a secret.
const secretTimeout = 15 * time.Second

// ARN is where Secrets Manager keeps a secret.
type ARN struct {
	arn    string
	region string
	key    string // of the JSON object that the secret is; "" takes the secret as it is
}

// ParseARN reads the ARN of a secret, with #key after it for one key of a JSON secret.
func ParseARN(text string) (parsed ARN, ok bool) {
	id, key, _ := strings.Cut(text, "#")
	a, err := arn.Parse(id)
	if err != nil || a.Service != "secretsmanager" || a.Region == "" || !strings.HasPrefix(a.Resource, "secret:") {
		return ARN{}, false
	}
	return ARN{arn: id, region: a.Region, key: key}, true
}

// Source returns the source of the secret. Its client is made when it is first read.
func (s ARN) Source(configs *awscall.Configs) Source {
	created := new(atomic.Int64) // when the version that was read was made, Unix seconds
	return Source{
		Read: s.reader(configs, created),
		Changed: func() time.Time {
			if at := created.Load(); at != 0 {
				return time.Unix(at, 0)
			}
			return time.Time{}
		},
	}
}

func (s ARN) reader(configs *awscall.Configs, created *atomic.Int64) func(context.Context) (string, error) {
	var caller *awscall.Caller
	var client *secretsmanager.Client // only one user at a time: see state.turn
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, secretTimeout)
		defer cancel()
		if client == nil {
			c, err := configs.In(ctx, s.region)
			if err != nil {
				return "", err
			}
			repeat := c.Retryer
			if repeat == nil {
				repeat = func() aws.Retryer { return retry.NewStandard() }
			}
			caller, c = awscall.New(c, secretService)
			client = secretsmanager.NewFromConfig(c, func(o *secretsmanager.Options) { o.Retryer = repeat() })
		}
		out, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &s.arn})
		if err != nil {
			return "", explainSecret(ctx, caller, err)
		}
		if out.CreatedDate != nil {
			created.Store(out.CreatedDate.Unix())
		}
		text := string(out.SecretBinary)
		if out.SecretString != nil {
			text = *out.SecretString
		}
		return s.pick(text)
	}
}

// pick takes the key out of a JSON secret. Its errors quote nothing of it.
func (s ARN) pick(text string) (string, error) {
	if s.key == "" {
		return text, nil
	}
	var object map[string]jsontext.Value
	if json.Unmarshal([]byte(text), &object) != nil {
		return "", audit.SettingsErrorf("leave out # and what follows it, or store a JSON object", "the secret is not a JSON object")
	}
	var value string
	if json.Unmarshal(object[s.key], &value) != nil {
		return "", audit.SettingsErrorf("name one of the secret's keys after #", "the secret has no text under the key %q", s.key)
	}
	return value, nil
}

// secretService says what the failures of reading a secret mean.
var secretService = awscall.Service{
	Name: "Secrets Manager", Endpoint: "AWS_ENDPOINT_URL_SECRETS_MANAGER",
	Permission: "allow secretsmanager:GetSecretValue on the secret, and kms:Decrypt on its key",
	Codes:      map[string]string{"ResourceNotFoundException": "correct the ARN, its account and its Region"},
}

// explainSecret says what the error of a call means. AWS's message may repeat the
// signed request, and with it the session's token.
func explainSecret(ctx context.Context, caller *awscall.Caller, err error) error {
	f := caller.Explain(ctx, err)
	switch {
	case f == nil:
		return err
	case f.Code == "ResourceNotFoundException":
		return audit.NewSettingsError(fmt.Errorf("there is no such secret: %w", f), f.Hint)
	case f.Kind == awscall.Retryable && !f.Answered && f.Code != "NoCredentials":
		return audit.WithHint(fmt.Errorf("reaching Secrets Manager: %w", f),
			"make Secrets Manager's endpoint reachable from here: a NAT gateway, or an interface endpoint for secretsmanager; check routes and security groups")
	}
	return f.Err()
}
