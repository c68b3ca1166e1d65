package cloudtrail

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

// asked notes the URL of a call and answers nothing.
type asked struct{ url string }

var errAsked = errors.New("asked")

func (a *asked) Do(r *http.Request) (*http.Response, error) {
	a.url = r.URL.Scheme + "://" + r.URL.Host + r.URL.Path
	return nil, errAsked
}

// The endpoint is the one that every client of AWS would use with these settings.
func TestEndpoint(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "config")
	text := "[profile fips]\nuse_fips_endpoint = true\n[profile own]\nservices = s\n[services s]\ncloudtrail_data =\n  endpoint_url = https://vpce.internal/base\n"
	if err := os.WriteFile(profile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, channel string
		env           map[string]string
		want          string
	}{
		{name: "AWS's own", want: "https://cloudtrail-data.us-east-1.amazonaws.com/PutAuditEvents"},
		{name: "of the Region", env: map[string]string{"AWS_REGION": "eu-west-1"}, want: "https://cloudtrail-data.eu-west-1.amazonaws.com/PutAuditEvents"},
		{
			name: "in China", channel: "arn:aws-cn:cloudtrail:cn-north-1:123456789012:channel/x",
			want: "https://cloudtrail-data.cn-north-1.amazonaws.com.cn/PutAuditEvents",
		},
		{name: "FIPS", env: map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"}, want: "https://cloudtrail-data-fips.us-east-1.amazonaws.com/PutAuditEvents"},
		{name: "FIPS by profile", env: map[string]string{"AWS_PROFILE": "fips"}, want: "https://cloudtrail-data-fips.us-east-1.amazonaws.com/PutAuditEvents"},
		{name: "dual stack", env: map[string]string{"AWS_USE_DUALSTACK_ENDPOINT": "true"}, want: "https://cloudtrail-data.us-east-1.api.aws/PutAuditEvents"},
		{name: "for all services", env: map[string]string{"AWS_ENDPOINT_URL": "http://a:1"}, want: "http://a:1/PutAuditEvents"},
		{
			name: "for this one", env: map[string]string{"AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_CLOUDTRAIL_DATA": "http://b:2/base/"},
			want: "http://b:2/base/PutAuditEvents",
		},
		{name: "by profile", env: map[string]string{"AWS_PROFILE": "own"}, want: "https://vpce.internal/base/PutAuditEvents"},
		{
			name: "ignored", env: map[string]string{"AWS_ENDPOINT_URL": "http://a:1", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
			want: "https://cloudtrail-data.us-east-1.amazonaws.com/PutAuditEvents",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_CLOUDTRAIL_DATA"} {
				t.Setenv(name, "")
			}
			t.Setenv("AWS_CONFIG_FILE", profile)
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			client := &asked{}
			cfg, err := config.LoadDefaultConfig(t.Context(), config.WithHTTPClient(client), config.WithCredentialsProvider(static()))
			if err != nil {
				t.Fatal(err)
			}
			d := newDestination(t, Options{Config: cfg, ChannelARN: c.channel})
			if _, err := d.Put(t.Context(), entries(1)); !errors.Is(err, errAsked) || client.url != c.want {
				t.Errorf("%s, %v; want %s", client.url, err, c.want)
			}
		})
	}
}

var _ aws.HTTPClient = (*asked)(nil)
