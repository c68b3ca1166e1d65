package cloudtrailtest_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudtraildata"
	"github.com/aws/aws-sdk-go-v2/service/cloudtraildata/types"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
)

const exampleEvent = `{"version":"3.10","userIdentity":{"type":"Anonymous","principalId":"anonymous"},"eventSource":"kong-gateway",
"eventName":"GET/services","eventTime":"2026-09-25T14:04:05Z","UID":"a","recipientAccountId":"111122223333"}`

// AWS's own client puts an event twice: CloudTrail Lake accepts both.
func Example() {
	trail := cloudtrailtest.New(cloudtrailtest.Options{})
	running := httptest.NewServer(trail)
	defer running.Close()
	client := cloudtraildata.NewFromConfig(aws.Config{
		Region: "eu-central-1", BaseEndpoint: &running.URL,
		Credentials: credentials.NewStaticCredentialsProvider(cloudtrailtest.AccessKeyID, cloudtrailtest.SecretAccessKey, ""),
	})
	for range 2 {
		_, err := client.PutAuditEvents(context.Background(), &cloudtraildata.PutAuditEventsInput{
			ChannelArn:  aws.String(cloudtrailtest.ChannelARN),
			AuditEvents: []types.AuditEvent{{Id: aws.String("a"), EventData: aws.String(exampleEvent)}},
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	counts := trail.Counts()
	fmt.Println(counts.Events, counts.Distinct, counts.Repeats)
	// Output: 2 1 1
}
