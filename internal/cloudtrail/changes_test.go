package cloudtrail

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// What a request changed is in the event as it is, or it gives way to the rest.
func TestResponseElements(t *testing.T) {
	d := newDestination(t, Options{})
	elements := func(e audit.Entry) (string, string) {
		t.Helper()
		_, data := d.Event(&e)
		checkEvent(t, data)
		var v struct {
			ResponseElements    jsontext.Value `json:"responseElements"`
			AdditionalEventData struct {
				Truncated jsontext.Value `json:"truncated"`
			} `json:"additionalEventData"`
		}
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatal(err)
		}
		return string(v.ResponseElements), string(v.AdditionalEventData.Truncated)
	}
	if got, _ := elements(audit.Entry{ID: "a"}); got != "" {
		t.Errorf("without changes: %s", got)
	}
	small := `{"changes":[{"entity":"routes","key":"k","operation":"update","from":[{"path":"/paths/0","value":"/a"}],"to":[{"path":"/paths/0","value":"/b"}],"history":"exact"}]}`
	large := `{"changes":["` + strings.Repeat("x", 99_900) + `"]}`
	long := strings.Repeat("\x01", 300_000)
	full := audit.Entry{
		ID: long, RequestID: long, ClientIP: long, Method: long, Path: long + "?" + long, Status: 500, TTL: 1, Workspace: long, Payload: long, RemovedFromPayload: long,
		Signature: long, RBACUserID: long, RBACUserName: long, RequestSource: long, Unknown: long, KongVersion: long,
	}
	for _, c := range []struct {
		entry   audit.Entry
		changes string
		cut     bool
	}{
		{audit.Entry{ID: "a"}, small, false},
		{audit.Entry{ID: "a"}, large, false},
		{audit.Entry{ID: "a", Payload: object(99_000)}, large, false},
		{full, small, false},
		{full, large, true},
		{audit.Entry{ID: "a"}, large + strings.Repeat(" ", 200), true},
		{audit.Entry{ID: "a"}, `{"changes":`, true},
	} {
		c.entry.Changes = c.changes
		got, marks := elements(c.entry)
		if c.cut != strings.Contains(marks, `"responseElements"`) {
			t.Errorf("%d bytes, marks %s", len(c.changes), marks)
		}
		if want := map[bool]string{false: c.changes, true: `{"changes":[]}`}[c.cut]; got != want {
			t.Errorf("%.100s, want %.100s", got, want)
		}
	}
}
