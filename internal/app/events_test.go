package app_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrail"
	"github.com/kong-cloudtrail/relay/internal/ocsf"
)

// The event that relay/README.md shows in each format is what the code makes.
func TestReadmeEvents(t *testing.T) {
	text, err := os.ReadFile("../../relay/README.md")
	if err != nil {
		t.Fatal(err)
	}
	const admin, account, id = "https://kong.internal:8444", "123456789012", "QUtUa3RMbRLxomqcL68ilOjjl68h56xr"
	e := audit.Entry{
		ID: id, RequestID: id, Timestamp: time.Date(2026, 9, 25, 14, 4, 5, 0, time.UTC).Unix(), ClientIP: "10.20.3.4", Method: "POST",
		Path: "/default/services/orders/routes?tags=shop", Status: 201, TTL: 2591995, Workspace: "0da4afe7-44ad-4e81-a953-5d2923ce68ae",
		Payload: `{"name":"orders","paths":["/orders"]}`, RBACUserID: "2e959b45-0053-41cc-9c2c-5458d0964331", RBACUserName: "alice",
		RequestSource: "kong-manager", KongVersion: "3.10.0.2",
	}
	encode := cloudtrail.NewEncoder(admin, account, false)
	processed := func() time.Time { return time.UnixMilli(e.Timestamp*1000 + 310) }
	for headline, encode := range map[string]audit.Encode{"## The event": encode, "## OCSF": ocsf.New(admin, processed).AppendEvent} {
		_, section, _ := strings.Cut(string(text), "\n"+headline+"\n")
		_, block, _ := strings.Cut(section, "```json\n")
		block, _, _ = strings.Cut(block, "```")
		event := encode(nil, &e)
		var made map[string]any
		if err := json.Unmarshal(event, &made); err != nil {
			t.Fatal(err)
		}
		delete(made, "raw_data") // the README says that it is left out
		got, err := json.Marshal(made, json.Deterministic(true))
		if err != nil {
			t.Fatal(err)
		}
		want := jsontext.Value(block)
		if err := want.Canonicalize(); err != nil {
			t.Fatalf("%s: %v\n%s", headline, err, block)
		}
		have := jsontext.Value(got)
		if err := have.Canonicalize(); err != nil {
			t.Fatal(err)
		}
		if string(have) != string(want) {
			t.Errorf("%s: the code makes\n%s\nthe README shows\n%s", headline, have, want)
		}
	}
}
