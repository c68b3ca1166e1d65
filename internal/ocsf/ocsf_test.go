package ocsf

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func schema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile("testdata/api_activity-1.8.0.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var now = time.UnixMilli(1772366400123)

// encode returns an entry's event, which the schema takes and which is within the limit.
func encode(t testing.TB, s *jsonschema.Schema, e *audit.Entry) (text []byte, event map[string]any) {
	t.Helper()
	text = New("https://kong.example.com:8444/admin", func() time.Time { return now }).AppendEvent(nil, e)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("not JSON: %v\n%.500s", err, text)
	}
	if err := s.Validate(v); err != nil {
		t.Fatalf("%v\n%.2000s", err, text)
	}
	if len(text) > MaxEvent || bytes.ContainsAny(text, "\n") {
		t.Fatalf("%d bytes, or more than a line", len(text))
	}
	event, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("%T", v)
	}
	return text, event
}

func typical() audit.Entry {
	return audit.Entry{
		ID: "8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK", RequestID: "8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK", Timestamp: 1663013700, ClientIP: "172.31.76.246",
		Method: "POST", Path: "/services?size=100", Status: 201, TTL: 2591940, Workspace: "cca82c73-2365-441b-8860-9e074d93b205",
		Payload: `{"name":"x"}`, RBACUserID: "2e959b45-0053-41cc-9c2c-5458d0964331", RBACUserName: "admin", RequestSource: "kong-manager",
		Signature: "c2ln", RemovedFromPayload: "token", KongVersion: "3.10.0.2", Unknown: `{"new":1}`,
	}
}

func TestEvent(t *testing.T) {
	e := typical()
	text, _ := encode(t, schema(t), &e)
	raw, err := json.Marshal(&e)
	if err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(string(raw))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"activity_id":1,"category_uid":6,"class_uid":6003,"type_uid":600301,"severity_id":1,"status_id":1,"status_code":"201","time":1663013700000,` +
		`"metadata":{"uid":"8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK","version":"1.8.0","product":{"name":"Kong Gateway","vendor_name":"Kong","version":"3.10.0.2","feature":{"name":"Admin API"}},` +
		`"log_name":"audit_requests","tenant_uid":"cca82c73-2365-441b-8860-9e074d93b205","original_time":"1663013700","processed_time":1772366400123},` +
		`"actor":{"user":{"uid":"2e959b45-0053-41cc-9c2c-5458d0964331","name":"admin"},"app_name":"kong-manager"},` +
		`"api":{"operation":"POST /services","request":{"uid":"8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK"},"response":{"code":201},"service":{"name":"kong-admin-api"}},` +
		`"http_request":{"http_method":"POST","uid":"8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK","url":{"path":"/services","query_string":"size=100"}},"http_response":{"code":201},` +
		`"src_endpoint":{"ip":"172.31.76.246"},"dst_endpoint":{"hostname":"kong.example.com","port":8444},"raw_data":` + string(quoted) + `,` +
		`"unmapped":{"payload":{"name":"x"},"removed_from_payload":"token","signature":"c2ln","ttl":2591940,"kong":{"new":1},"rbac_user_name_note":"` + nameNote + `"}}`
	if string(text) != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

func TestActivities(t *testing.T) {
	s := schema(t)
	for method, want := range map[string]string{
		"POST": "1", "GET": "2", "HEAD": "2", "OPTIONS": "2", "PUT": "3", "PATCH": "3", "DELETE": "4", "TRACE": "99", "PURGE": "99", "": "99", "get": "99",
	} {
		_, event := encode(t, s, &audit.Entry{ID: "a", Method: method, Path: "/"})
		if fmt.Sprint(event["activity_id"]) != want {
			t.Errorf("%s: activity %v", method, event["activity_id"])
		}
	}
	for status, want := range map[int]string{0: "0", 200: "1", 399: "1", 400: "2", 502: "2", -1: "1"} {
		_, event := encode(t, s, &audit.Entry{ID: "a", Status: status})
		if fmt.Sprint(event["status_id"]) != want {
			t.Errorf("%d: status %v", status, event["status_id"])
		}
	}
}

func TestLargestEvent(t *testing.T) {
	s := schema(t)
	for _, unit := range []string{"x", `"`, "\x01", "é", "\xff", "\u2028", `{"a":`} {
		long := strings.Repeat(unit, 300_000)
		e := audit.Entry{
			ID: long[:100], RequestID: long, Timestamp: 1 << 60, ClientIP: long, Method: long, Path: long + "?" + long, Status: math.MaxInt, TTL: math.MaxInt64,
			Workspace: long, Payload: long, RemovedFromPayload: long, Signature: long, RBACUserID: long, RBACUserName: long, RequestSource: long,
			Unknown: long, KongVersion: long, Verification: audit.Verification(long),
		}
		text, event := encode(t, s, &e)
		if len(text) < 100_000 {
			t.Errorf("only %d bytes", len(text))
		}
		sum := sha256.Sum256([]byte(long))
		if !strings.Contains(string(text), hex.EncodeToString(sum[:])) {
			t.Error("no hash of what was cut")
		}
		if m, ok := event["metadata"].(map[string]any); !ok || m["is_truncated"] != true {
			t.Errorf("%v", m)
		}
	}
	// What changed is whole where there is room, and never in raw_data.
	changes := `{"changes":["` + strings.Repeat("x", 80_000) + `"]}`
	for _, payload := range []string{"", strings.Repeat("x", 10_000), strings.Repeat("\x01", 300_000)} {
		c := typical()
		c.Payload, c.Changes = payload, changes
		text, _ := encode(t, s, &c)
		if strings.Count(string(text), changes) != 1 {
			t.Errorf("a payload of %d bytes: the changes are not there", len(payload))
		}
	}
	long := strings.Repeat("\x01", 300_000)
	all := typical()
	all.Path, all.Payload, all.RemovedFromPayload, all.Unknown, all.Signature, all.Changes = long+"?"+long, long, long, long, long, `{"changes":["`+strings.Repeat("x", 99_000)+`"]}`
	if text, _ := encode(t, s, &all); !strings.Contains(string(text), all.Changes) && !strings.Contains(string(text), `"unmapped.response_elements":{"bytes":99016`) {
		t.Errorf("%d bytes, and no mark of what was cut", len(text))
	}
	// An object that fits stays one.
	payload := `{"k":"` + strings.Repeat("v", 20_000) + `","k":1}`
	e := typical()
	e.Payload = payload
	if text, _ := encode(t, s, &e); !strings.Contains(string(text), `"payload":`+payload) {
		t.Error("not embedded")
	}
}

// odd draws what Kong, or an attacker, may have recorded.
func odd(r *rand.Rand) audit.Entry {
	words := []string{
		"", "a", "GET", "POST", "PURGE", "::1", "fe80::1%eth0", "1.2.3.4", "::ffff:1.2.3.4", "unix:", `{"a":{"b":[1,"x",null,1e400]}}`, `{"a":1,"a":2}`, `{`, `[1]`,
		"\x00", "\xff", "\xed\xa0\x80", `{"k":"\ud800"}`, `"\udc00"`, `{"k":"\ud83d\ude00"}`, "\u2028", `"`, `\`, "\n", "/services/x?y=z&?", "?", "/", strings.Repeat("é\"", r.IntN(3000)), `{"k":"` + "\xff" + `"}`, "999.1.1.1", "-1",
	}
	word := func() string {
		w := words[r.IntN(len(words))]
		if r.IntN(3) == 0 {
			w += words[r.IntN(len(words))]
		}
		return w
	}
	number := func() int64 {
		return []int64{0, 1, -1, 1 << 53, math.MaxInt64, math.MinInt64, 1663013700, int64(r.Uint64())}[r.IntN(8)]
	}
	ip := word()
	switch r.IntN(3) {
	case 0:
		var b [16]byte
		for i := range b {
			b[i] = byte(r.IntN(256) * r.IntN(2))
		}
		ip = netip.AddrFrom16(b).String()
	case 1:
		ip = netip.AddrFrom4([4]byte{byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))}).String()
	}
	return audit.Entry{
		ID: "id", RequestID: word(), Timestamp: number(), ClientIP: ip, Method: word(), Path: word(), Status: int(number()), TTL: number(),
		Workspace: word(), Payload: word(), EmptyPayload: r.IntN(2) == 0, RemovedFromPayload: word(), Signature: word(), RBACUserID: word(), RBACUserName: word(),
		RequestSource: word(), Unknown: word(), KongVersion: word(), Verification: audit.Verification(word()),
	}
}

// Odd entries that are tried: -ocsf.entries tries more, and -ocsf.seed others.
var (
	entries = flag.Int("ocsf.entries", 1500, "odd entries that are encoded and held against the schema")
	seed    = flag.Uint64("ocsf.seed", 1, "seed of those entries")
)

func TestAnyEntryValidates(t *testing.T) {
	s := schema(t)
	r := rand.New(rand.NewPCG(*seed, 2))
	for range *entries {
		e := odd(r)
		encode(t, s, &e)
	}
}

func FuzzEvent(f *testing.F) {
	s := schema(f)
	f.Add(int64(1663013700), "10.0.0.1", "GET", "/services?size=1", `{"a":1}`, 200)
	f.Add(int64(-1), "::1", "", "?", "\xff", -1)
	f.Fuzz(func(t *testing.T, at int64, ip, method, path, payload string, status int) {
		e := audit.Entry{ID: "id", Timestamp: at, ClientIP: ip, Method: method, Path: path, Payload: payload, Unknown: payload, Status: status, RBACUserID: ip}
		encode(t, s, &e)
	})
}

func BenchmarkEvent(b *testing.B) {
	e, enc := typical(), New("http://kong:8001", time.Now)
	var text []byte
	b.ReportAllocs()
	for b.Loop() {
		text = enc.AppendEvent(text[:0], &e)
	}
}
