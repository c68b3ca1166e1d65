package awscall_test

import (
	"testing"

	"github.com/kong-cloudtrail/relay/internal/awscall"
)

func TestOtherEndpoint(t *testing.T) {
	for endpoint, want := range map[string]string{
		"https://logs.eu-central-1.amazonaws.com":                    "",
		"https://logs-fips.us-gov-west-1.amazonaws.com":              "",
		"https://vpce-0123-abc.logs.eu-central-1.vpce.amazonaws.com": "",
		"https://Logs.cn-north-1.amazonaws.com.cn/":                  "",
		"https://logs.eu-central-1.api.aws":                          "",
		"http://127.0.0.1:4566":                                      "http://127.0.0.1:4566",
		"HTTP://user:hunter2@LocalStack:4566/a?b#c":                  "http://localstack:4566",
		"https://amazonaws.com.example.org":                          "https://amazonaws.com.example.org",
	} {
		if got := awscall.OtherEndpoint(&endpoint); got != want {
			t.Errorf("%s: %q, want %q", endpoint, got, want)
		}
	}
	if got := awscall.OtherEndpoint(nil); got != "" {
		t.Errorf("no endpoint: %q", got)
	}
}
