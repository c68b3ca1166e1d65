package config

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// secretTimeout bounds one reading of a secret.
const secretTimeout = 15 * time.Second

// awsConfigs gives the SDK's configuration, read once and only when it is first
// asked for: reading it takes time that a cold start does not have to spare.
type awsConfigs struct {
	load func(ctx context.Context) (aws.Config, error)

	mu     sync.Mutex
	loaded bool
	config aws.Config
}

func newAWSConfigs() *awsConfigs {
	return &awsConfigs{load: func(ctx context.Context) (aws.Config, error) { return awsconfig.LoadDefaultConfig(ctx) }}
}

// in returns the configuration for a Region; for "" that of the environment.
func (a *awsConfigs) in(ctx context.Context, region string) (aws.Config, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.loaded {
		c, err := a.load(ctx)
		if err != nil {
			return aws.Config{}, fmt.Errorf("reading the AWS configuration: %w", err)
		}
		a.config, a.loaded = c, true
	}
	c := a.config.Copy()
	if region != "" {
		c.Region = region
	}
	return c, nil
}

// secretARN is where Secrets Manager keeps a secret.
type secretARN struct {
	arn    string
	region string
	key    string // of the JSON object that the secret is; "" takes the secret as it is
}

// errSecretARN says what a secret's ARN has to look like.
var errSecretARN = expected("the ARN of a secret in Secrets Manager",
	"For example: arn:aws:secretsmanager:eu-central-1:123456789012:secret:kong-AbCdEf, with #key after it for one key of a JSON secret.")

func parseSecretARN(text string) (secretARN, error) {
	id, key, _ := strings.Cut(text, "#")
	a, err := arn.Parse(id)
	if err != nil || a.Service != "secretsmanager" || a.Region == "" || !strings.HasPrefix(a.Resource, "secret:") {
		return secretARN{}, errSecretARN
	}
	return secretARN{arn: id, region: a.Region, key: key}, nil
}

// reader returns a function that reads the secret. The client is made when it
// is first called, and kept.
func (s secretARN) reader(configs *awsConfigs) func(context.Context) (string, error) {
	var client *secretsmanager.Client // only one caller at a time: see secretSource.turn
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, secretTimeout)
		defer cancel()
		if client == nil {
			c, err := configs.in(ctx, s.region)
			if err != nil {
				return "", err
			}
			client = secretsmanager.NewFromConfig(c)
		}
		out, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &s.arn})
		if err != nil {
			return "", explainSecret(err)
		}
		text := string(out.SecretBinary)
		if out.SecretString != nil {
			text = *out.SecretString
		}
		return s.pick(text)
	}
}

// pick takes the key out of a JSON secret. Its errors quote nothing of it.
func (s secretARN) pick(text string) (string, error) {
	if s.key == "" {
		return text, nil
	}
	var object map[string]jsontext.Value
	if json.Unmarshal([]byte(text), &object) != nil {
		return "", audit.Settingsf("leave out # and what follows it, or store a JSON object", "the secret is not a JSON object")
	}
	var value string
	if json.Unmarshal(object[s.key], &value) != nil {
		return "", audit.Settingsf("name one of the secret's keys after #", "the secret has no text under the key %q", s.key)
	}
	return value, nil
}

// explainSecret adds a hint where a person has to act, and leaves what is retryable as it is.
func explainSecret(err error) error {
	var api smithy.APIError
	var missing *types.ResourceNotFoundException
	var sent *smithyhttp.RequestSendError
	switch {
	case errors.As(err, &missing):
		return audit.Settingsf("correct the ARN, its account and its Region", "Secrets Manager has no such secret")
	case errors.As(err, &api) && strings.HasPrefix(api.ErrorCode(), "AccessDenied"):
		return audit.Settingsf("allow secretsmanager:GetSecretValue on the secret, and kms:Decrypt on its key",
			"no permission to read the secret")
	case errors.As(err, &api): // its message may repeat the signed request, and with it the session's token
		return fmt.Errorf("asking Secrets Manager: it answered %s", api.ErrorCode())
	case errors.As(err, &sent), errors.Is(err, context.DeadlineExceeded):
		return audit.WithHint(fmt.Errorf("reaching Secrets Manager: %w", err),
			"make Secrets Manager's endpoint reachable from here: a NAT gateway, or an interface endpoint for secretsmanager; check routes and security groups")
	}
	return err
}
