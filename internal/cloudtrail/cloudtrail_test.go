package cloudtrail

import (
	"context"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
)

func TestNewReportsEveryProblem(t *testing.T) {
	_, err := New(Options{ChannelARN: "channel/x", ExternalID: "x", Endpoint: "localhost:8080", Hostname: "http://u:secret@[x"})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`channel ARN "channel/x": expected arn:aws:cloudtrail:`, "external ID", "no credentials provider", "endpoint: expected a URL", "hostname"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Error("the password is in the error")
	}
}

func TestNewChecksTheChannel(t *testing.T) {
	for channel, want := range map[string]string{
		testARN: "",
		"arn:aws:cloudtrail:us-east-1:1234:channel/x": `account "1234" is not 12 digits`,
		"arn:aws:cloudtrail:us-east-1::channel/x":     `account "" is not 12 digits`,
		"arn:aws:cloudtrail::123456789012:channel/x":  "no Region",
		"": "expected arn:aws:cloudtrail:",
	} {
		_, err := New(Options{ChannelARN: channel, Credentials: static()})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", channel, err, want)
		}
	}
}

func TestNewResolvesTheEndpoint(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
		env  map[string]string
		want string
	}{
		{"AWS's own", Options{}, nil, "https://cloudtrail-data.us-east-1.amazonaws.com/PutAuditEvents"},
		{"of the Region", Options{Region: "eu-west-1"}, nil, "https://cloudtrail-data.eu-west-1.amazonaws.com/PutAuditEvents"},
		{
			"in China", Options{ChannelARN: "arn:aws-cn:cloudtrail:cn-north-1:123456789012:channel/x"}, nil,
			"https://cloudtrail-data.cn-north-1.amazonaws.com.cn/PutAuditEvents",
		},
		{"for all services", Options{}, map[string]string{"AWS_ENDPOINT_URL": "http://a:1"}, "http://a:1/PutAuditEvents"},
		{
			"for this one", Options{}, map[string]string{"AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_CLOUDTRAIL_DATA": "http://b:2/base/"},
			"http://b:2/base/PutAuditEvents",
		},
		{
			"ignored", Options{}, map[string]string{"AWS_ENDPOINT_URL": "http://a:1", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
			"https://cloudtrail-data.us-east-1.amazonaws.com/PutAuditEvents",
		},
		{"as an option", Options{Endpoint: "http://c:3"}, map[string]string{"AWS_ENDPOINT_URL": "http://a:1"}, "http://c:3/PutAuditEvents"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Getenv = func(name string) string { return c.env[name] }
			if got := newTestSink(t, c.o).client.url.String(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestHostnameWithoutUserinfo(t *testing.T) {
	for in, want := range map[string]string{
		"https://kong:8444":              "https://kong:8444",
		"https://user:pass@kong:8444/x/": "https://kong:8444/x/",
		"https://kong:8444/a@b":          "https://kong:8444/a@b",
		"":                               "",
	} {
		if got, err := withoutUserinfo(in); got != want || err != nil {
			t.Errorf("%q gave %q, %v", in, got, err)
		}
	}
}

func TestCredentialsAreCached(t *testing.T) {
	keys := &rotating{}
	c := newCredentials(keys)
	for range 3 {
		v, err := c.Retrieve(context.Background())
		if err != nil || v.AccessKeyID != "AKID1" {
			t.Fatal(v.AccessKeyID, err)
		}
	}
	cache := aws.NewCredentialsCache(keys)
	if newCredentials(cache).provider != cache {
		t.Error("a cache was wrapped in another")
	}
}
