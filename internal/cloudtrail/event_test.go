package cloudtrail

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"pgregory.net/rapid"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const testHostname = "https://kong.example.com:8444"

func newDestination(t testing.TB, o Options) *Destination {
	t.Helper()
	if o.ChannelARN == "" {
		o.ChannelARN = testARN
	}
	if o.Config.Credentials == nil {
		o.Config.Credentials = static()
	}
	if o.Hostname == "" {
		o.Hostname = testHostname
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// at are the options for a service at a URL.
func at(url string) Options { return Options{Config: aws.Config{BaseEndpoint: &url}} }

// decode parses JSON without losing anything of numbers.
func decode(t testing.TB, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, text)
	}
	if d.More() {
		t.Fatalf("more than one JSON value: %s", text)
	}
	return v
}

func TestEventTable(t *testing.T) {
	text, err := os.ReadFile("testdata/events.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name       string
		ErrorCodes bool
		Entry      audit.Entry
		Event      json.RawMessage
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			s := newDestination(t, Options{ErrorCodes: c.ErrorCodes})
			id, data := s.Event(&c.Entry)
			if id != c.Entry.ID {
				t.Errorf("id %q, want %q", id, c.Entry.ID)
			}
			if got, want := decode(t, data), decode(t, c.Event); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %s\nwant %s", data, c.Event)
			}
			checkEvent(t, data)
		})
	}
}

// event is what the tests look at in eventData.
type event struct {
	Version      string `json:"version"`
	UserIdentity struct {
		Type        string            `json:"type"`
		PrincipalID string            `json:"principalId"`
		Details     map[string]string `json:"details"`
	} `json:"userIdentity"`
	EventSource         string `json:"eventSource"`
	EventName           string `json:"eventName"`
	EventTime           string `json:"eventTime"`
	UID                 string
	RequestParameters   json.RawMessage `json:"requestParameters"`
	SourceIPAddress     string          `json:"sourceIPAddress"`
	RecipientAccountID  string          `json:"recipientAccountId"`
	AdditionalEventData json.RawMessage `json:"additionalEventData"`
}

type parameters struct {
	Query   string          `json:"queryParameters"`
	Payload json.RawMessage `json:"payload"`
}

type additional struct {
	RemovedFromPayload string          `json:"removedFromPayload"`
	Kong               json.RawMessage `json:"kong"`
	Truncated          map[string]struct {
		Bytes  int    `json:"bytes"`
		SHA256 string `json:"sha256"`
	} `json:"truncated"`
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

var timePattern = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$`)

// checkEvent checks eventData against every limit of AWS's schema.
func checkEvent(t failer, data []byte) (e event, p parameters, a additional) {
	t.Helper()
	if !utf8.Valid(data) || !json.Valid(data) {
		t.Fatalf("not JSON in UTF-8: %q", data)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatalf("event: %v", err)
	}
	if len(data) > 256_000 {
		t.Fatalf("event of %d bytes", len(data))
	}
	for _, f := range []struct {
		name, value string
		limit       int
	}{
		{"version", e.Version, 256},
		{"userIdentity.type", e.UserIdentity.Type, 128},
		{"userIdentity.principalId", e.UserIdentity.PrincipalID, 1024},
		{"eventSource", e.EventSource, 1024},
		{"eventName", e.EventName, 1024},
		{"UID", e.UID, 1024},
		{"eventTime", e.EventTime, 20},
		{"recipientAccountId", e.RecipientAccountID, 12},
	} {
		if f.value == "" || len(f.value) > f.limit {
			t.Fatalf("%s has %d bytes, want 1 to %d", f.name, len(f.value), f.limit)
		}
	}
	if !timePattern.MatchString(e.EventTime) {
		t.Fatalf("eventTime %q", e.EventTime)
	}
	if e.SourceIPAddress != "" && !isAddress(e.SourceIPAddress) {
		t.Fatalf("sourceIPAddress %q", e.SourceIPAddress)
	}
	if n := len(e.RequestParameters); n > 0 {
		if n > 100_000 {
			t.Fatalf("requestParameters of %d bytes", n)
		}
		if err := json.Unmarshal(e.RequestParameters, &p); err != nil {
			t.Fatalf("requestParameters: %v", err)
		}
		if p.Query == "" && p.Payload == nil {
			t.Fatalf("requestParameters without any")
		}
	}
	if n := len(e.AdditionalEventData); n > 28_000 {
		t.Fatalf("additionalEventData of %d bytes", n)
	}
	if err := json.Unmarshal(e.AdditionalEventData, &a); err != nil {
		t.Fatalf("additionalEventData: %v", err)
	}
	return e, p, a
}

func (a additional) wantCut(t failer, path, original string) {
	t.Helper()
	sum := sha256.Sum256([]byte(original))
	c, ok := a.Truncated[path]
	if !ok || c.Bytes != len(original) || c.SHA256 != hex.EncodeToString(sum[:]) {
		t.Fatalf("truncated.%s is %+v, %v; want %d bytes, sha256 %x", path, c, ok, len(original), sum)
	}
}

func text(t failer, raw json.RawMessage) (s string) {
	t.Helper()
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatalf("not a string: %v", err)
	}
	return s
}

// object returns a JSON object of exactly n bytes.
func object(n int) string {
	return `{"k":"` + strings.Repeat("v", n-len(`{"k":""}`)) + `"}`
}

// anyString is a string of a kind that breaks something, of up to about most bytes.
func anyString(most int) *rapid.Generator[string] {
	upTo := func(sizes ...int) *rapid.Generator[int] {
		return rapid.SampledFrom(slices.DeleteFunc(sizes, func(n int) bool { return n > most }))
	}
	return rapid.OneOf(
		rapid.Just(""),
		rapid.String(),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		rapid.Custom(func(t *rapid.T) string {
			unit := rapid.SampledFrom([]string{"x", `"`, `\`, "\x00", "\xff", "€", "𝄞", "{", `{"a":`, "\n"}).Draw(t, "unit")
			return strings.Repeat(unit, upTo(1, 250, 300, 1000, 1100, 5000, 30_000, 110_000).Draw(t, "times"))
		}),
		rapid.Custom(func(t *rapid.T) string {
			return object(upTo(10, 5000, 25_000, 30_000, 99_980, 99_990, 100_000, 300_000).Draw(t, "size"))
		}),
	)
}

func anyEntry() *rapid.Generator[audit.Entry] {
	return rapid.Custom(func(t *rapid.T) audit.Entry {
		s, large := anyString(1100), anyString(300_000)
		return audit.Entry{
			ID:        rapid.StringMatching(`[-_A-Za-z0-9]{1,128}`).Draw(t, "id"),
			RequestID: s.Draw(t, "request_id"), Timestamp: rapid.Int64().Draw(t, "timestamp"), ClientIP: s.Draw(t, "client_ip"),
			Method: s.Draw(t, "method"), Path: large.Draw(t, "path") + large.Draw(t, "query"), Status: rapid.Int().Draw(t, "status"),
			TTL: rapid.Int64().Draw(t, "ttl"), Workspace: s.Draw(t, "workspace"), Payload: large.Draw(t, "payload"),
			RemovedFromPayload: large.Draw(t, "removed"), Signature: s.Draw(t, "signature"), RBACUserID: s.Draw(t, "user"),
			RBACUserName: s.Draw(t, "name"), RequestSource: s.Draw(t, "source"), Unknown: large.Draw(t, "unknown"),
			KongVersion: s.Draw(t, "version"), Verification: audit.Verification(s.Draw(t, "verification")),
		}
	})
}

func TestEventOfAnyEntry(t *testing.T) {
	s := newDestination(t, Options{ErrorCodes: true})
	rapid.Check(t, func(t *rapid.T) {
		e := anyEntry().Draw(t, "entry")
		id, data := s.Event(&e)
		got, _, _ := checkEvent(t, data)
		if got.UID != id {
			t.Fatalf("UID %q, id %q", got.UID, id)
		}
	})
}

// maxDepth is how deep a payload may nest and still be embedded.
const maxDepth = 500

func FuzzEvent(f *testing.F) {
	f.Add("GET", "/a/?b=c", `{"a":[1,2.50e-3,"\ud800",{}]}`, `{"x":null}`, int64(1663013700))
	f.Add("", "", "{\"a\":\"\xff\"}", "", int64(-1))
	f.Add("\x00", "?", `{"a":1}}`, `[]`, int64(1)<<62)
	f.Add("P", "/?"+strings.Repeat("%", 200), `{"a":01}`, `{"a":tru}`, int64(0))
	s := newDestination(f, Options{})
	f.Fuzz(func(t *testing.T, method, path, payload, unknown string, at int64) {
		_, data := s.Event(&audit.Entry{
			ID: "a", Method: method, Path: path, Payload: payload, Unknown: unknown, Timestamp: at, ClientIP: path,
		})
		_, p, _ := checkEvent(t, data)
		// What a strict parser calls an object is embedded, and nothing else is.
		trimmed := strings.Trim(payload, " \t\r\n")
		wanted := strings.HasPrefix(trimmed, "{") && json.Valid([]byte(trimmed)) && len(trimmed) < 30_000
		if embedded := len(p.Payload) > 0 && p.Payload[0] == '{'; embedded != wanted && strings.Count(payload, "{")+strings.Count(payload, "[") <= maxDepth && len(payload) < 10_000 {
			t.Errorf("embedded: %v, want %v: %q", embedded, wanted, payload)
		}
	})
}

// Event returns the event's id and its eventData.
func (d *Destination) Event(e *audit.Entry) (id string, eventData []byte) {
	return eventID(e), d.mapping.appendEvent(nil, e)
}
