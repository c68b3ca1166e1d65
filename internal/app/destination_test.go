package app

import (
	"path/filepath"
	"testing"

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
	names := map[string]bool{}
	for _, s := range []config.Settings{
		{Destination: config.ToCloudTrail, ChannelARN: "arn:aws:cloudtrail:eu-west-1:123456789012:channel/a"},
		{Destination: config.ToJSONL, JSONLFile: "-"},
		{Destination: config.ToJSONL, JSONLFile: "events.jsonl"},
		{Destination: config.ToJSONL, JSONLFile: filepath.Join(dir, "sub", "events.jsonl")},
		logs, elsewhere,
	} {
		name, err := destinationName(&s)
		if err != nil || names[name] {
			t.Errorf("%+v: %q, %v", s, name, err)
		}
		names[name] = true
	}
	absolute, err := destinationName(&config.Settings{Destination: config.ToJSONL, JSONLFile: filepath.Join(dir, "events.jsonl")})
	if err != nil || !names[absolute] {
		t.Errorf("%q is not the name of the same file by a relative path: %v", absolute, err)
	}
}
