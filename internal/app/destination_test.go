package app

import (
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kong-cloudtrail/relay/internal/config"
)

// What is in the ledger of one destination is not put into it again, so that no
// two destinations may have the same name.
func TestDestinationName(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	logs := config.Settings{Destination: config.ToCloudWatch, Region: "eu-west-1", LogGroup: "g", LogStream: "s"}
	elsewhere := logs
	elsewhere.AccountID = "123456789012"
	at := func(s config.Settings, endpoint string) config.Settings {
		s.UseAWS(aws.Config{Region: "eu-west-1", BaseEndpoint: &endpoint})
		return s
	}
	channel := config.Settings{Destination: config.ToCloudTrail, ChannelARN: "arn:aws:cloudtrail:eu-west-1:123456789012:channel/a"}
	names := map[string]bool{}
	for _, s := range []config.Settings{
		at(channel, "http://127.0.0.1:1"), at(channel, "http://127.0.0.1:2"), at(logs, "http://127.0.0.1:1"), at(elsewhere, "http://127.0.0.1:1"),
		at(channel, "https://cloudtrail-data.eu-west-1.amazonaws.com"),
		{Destination: config.ToJSONL, JSONLFile: "-"},
		{Destination: config.ToJSONL, JSONLFile: "events.jsonl"},
		{Destination: config.ToJSONL, JSONLFile: filepath.Join(dir, "sub", "events.jsonl")},
		at(logs, ""), at(elsewhere, ""),
	} {
		name, err := destinations()[s.Destination].ledgerName(t.Context(), &s)
		if err != nil || names[name] {
			t.Errorf("%+v: %q, %v", s, name, err)
		}
		names[name] = true
	}
	// AWS's own endpoints are the same destination.
	fips := at(channel, "https://cloudtrail-data-fips.eu-west-1.amazonaws.com")
	if name, err := destinations()[fips.Destination].ledgerName(t.Context(), &fips); err != nil || name != channel.ChannelARN {
		t.Errorf("%q, %v", name, err)
	}
	absolute, err := destinations()[config.ToJSONL].ledgerName(t.Context(), &config.Settings{Destination: config.ToJSONL, JSONLFile: filepath.Join(dir, "events.jsonl")})
	if err != nil || !names[absolute] {
		t.Errorf("%q is not the name of the same file by a relative path: %v", absolute, err)
	}
}
