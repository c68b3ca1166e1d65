package awscall

import (
	"context"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/logging"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Configs gives the SDK's configuration, read once and only when it is first asked for:
// reading it takes time that a cold start does not have to spare. It is safe for
// concurrent use.
type Configs struct {
	// Load reads the configuration. Default: from the environment.
	Load func(ctx context.Context) (aws.Config, error)

	mu     sync.Mutex
	loaded bool
	config aws.Config
}

// In returns the configuration for a Region; for "" that of the environment.
func (c *Configs) In(ctx context.Context, region string) (aws.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.loaded {
		load := c.Load
		if load == nil {
			// The SDK would write warnings of its own to standard error, between the lines of the log.
			load = func(ctx context.Context) (aws.Config, error) {
				return awsconfig.LoadDefaultConfig(ctx, awsconfig.WithLogger(logging.Nop{}))
			}
		}
		config, err := load(ctx)
		if err == nil && config.Credentials != nil {
			config.Credentials = aws.NewCredentialsCache(&reread{load: load, provider: config.Credentials})
		}
		if err != nil {
			return aws.Config{}, audit.SettingsErrorf("name a profile that ~/.aws/config has with AWS_PROFILE, or leave it out; AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name other files",
				"reading the AWS configuration: %w", err)
		}
		c.config, c.loaded = config, true
	}
	config := c.config.Copy()
	if region != "" {
		config.Region = region
	}
	return config, nil
}

// reread provides credentials as the configuration has them at the moment. The SDK reads
// a file of credentials once: what was renewed there would not be seen until a restart.
type reread struct {
	load func(ctx context.Context) (aws.Config, error)

	mu       sync.Mutex
	asked    bool
	provider aws.CredentialsProvider
}

// Retrieve is called again only if what it gave has expired, or AWS did not take it.
func (r *reread) Retrieve(ctx context.Context) (aws.Credentials, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked {
		if config, err := r.load(ctx); err == nil && config.Credentials != nil {
			r.provider = config.Credentials
		}
	}
	r.asked = true
	return r.provider.Retrieve(ctx)
}
