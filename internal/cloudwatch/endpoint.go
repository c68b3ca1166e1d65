package cloudwatch

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"github.com/kong-cloudtrail/relay/internal/awscall"
)

// OtherEndpoint returns the endpoint that a configuration names for the service if it
// is not AWS's, else "".
func OtherEndpoint(cfg aws.Config) string {
	return awscall.OtherEndpoint(cloudwatchlogs.NewFromConfig(cfg).Options().BaseEndpoint)
}
