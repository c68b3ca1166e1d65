package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// TestRedactedPayloads follows a secret through the relay to what it delivers and keeps.
func TestRedactedPayloads(t *testing.T) {
	t.Parallel()
	var list []auditlog.Row
	for i, payload := range []string{`{"config":{"api_key":"hunter2"}}`, `{"consumer":{"password":"hunter2"},"tags":["x"]}`, `{"config":{"api_key":["hunter2"]}}`,
		"name=x&config.api_key=hunter2"} {
		r := row(fmt.Sprintf("p%031d", i), time.Now().Add(-time.Hour))
		r.Payload = &payload
		list = append(list, r)
	}
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{Faults: cloudtrailtest.Faults{IDs: map[string]string{list[2].RequestID: "InvalidData"}}})
	w.kong.Add(list...)
	w.env = append(w.env, "RELAY_REDACT=config.api_key,*.password")
	w.once()
	events := w.trail.Events()
	if len(events) != 3 {
		t.Fatalf("%d events", len(events))
	}
	for _, e := range events {
		if strings.Contains(e.Data, "hunter2") || !strings.Contains(e.Data, "[redacted]") && !strings.Contains(e.Data, `"withheld":{"requestParameters.payload":{"bytes":29`) {
			t.Errorf("%s", e.Data)
		}
	}
	out, _ := w.says(exitOK, "dead", "list", "--json")
	if strings.Contains(out, "hunter2") || !strings.Contains(out, "[redacted]") {
		t.Errorf("%s", out)
	}
}
