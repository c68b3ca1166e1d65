package kongadmin

import (
	"bytes"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func decodeRow(t *testing.T, row string) audit.Entry {
	t.Helper()
	page, err := decodePage(`{"data":[`+row+`]}`, requestLog, pageDate, nil)
	if err != nil || len(page.Entries) != 1 {
		t.Fatalf("%d entries, %v", len(page.Entries), err)
	}
	return page.Entries[0]
}

// The samples of Kong's documentation.
func TestDecodeSamples(t *testing.T) {
	got := decodeRow(t, `{"client_ip":"172.31.76.246","signature":null,"removed_from_payload":null,"status":200,"ttl":2591940,"rbac_user_id":null,"path":"/event-hooks/?size=100","payload":null,"request_timestamp":1663013700,"workspace":"cca82c73-2365-441b-8860-9e074d93b205","method":"GET","request_id":"8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK"}`)
	want := audit.Entry{
		ID: "8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK", RequestID: "8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK", Timestamp: 1663013700,
		ClientIP: "172.31.76.246", Method: "GET", Path: "/event-hooks/?size=100", Status: 200, TTL: 2591940,
		Workspace: "cca82c73-2365-441b-8860-9e074d93b205",
	}
	if got != want {
		t.Errorf("got %+v", got)
	}
	got = decodeRow(t, ` { "payload" : "{\"name\":\"caf\u00e9\\n\"}", "rbac_user_id":"u","rbac_user_name":"admin","request_source":"kong-manager",
		"signature":"c2ln", "removed_from_payload":"token,secret","request_id":"a"} `)
	want = audit.Entry{
		ID: "a", RequestID: "a", Payload: `{"name":"café\n"}`, RBACUserID: "u", RBACUserName: "admin", RequestSource: "kong-manager",
		Signature: "c2ln", RemovedFromPayload: "token,secret", TTL: audit.NoTTL, Timestamp: pageDate.Unix(), TimestampGuessed: true,
	}
	if got != want {
		t.Errorf("got %+v", got)
	}
}

func TestDecodeEntry(t *testing.T) {
	none := audit.Entry{TTL: audit.NoTTL}
	for name, c := range map[string]struct {
		row  string
		want func(*audit.Entry)
	}{
		"empty": {`{}`, func(*audit.Entry) {}},
		"all null": {`{"request_id":null,"request_timestamp":null,"client_ip":null,"method":null,"path":null,"status":null,"ttl":null,
			"workspace":null,"payload":null,"removed_from_payload":null,"signature":null,"rbac_user_id":null,"rbac_user_name":null,"request_source":null,"new":null}`,
			func(*audit.Entry) {}},
		"empty texts": {`{"request_id":"","path":"","payload":""}`, func(e *audit.Entry) { e.EmptyPayload = true }},
		"unknown": {`{"zone":"eu","n": 1.50,"o":{"a":[1, null]},"null":null,"b":false}`, func(e *audit.Entry) {
			e.Unknown = `{"zone":"eu","n":1.50,"o":{"a":[1, null]},"b":false}`
		}},
		"unknown twice":          {`{"a":1,"b":2,"\u0061":3}`, func(e *audit.Entry) { e.Unknown = `{"a":3,"b":2}` }},
		"unknown, then null":     {`{"a":1,"b":2,"a":null}`, func(e *audit.Entry) { e.Unknown = `{"b":2}` }},
		"unknown only null":      {`{"a":1,"a":null}`, func(*audit.Entry) {}},
		"unknown not UTF-8":      {"{\"a\":\"\xff\"}", func(e *audit.Entry) { e.Unknown = "{\"a\":\"\uFFFD\"}" }},
		"unknown with an escape": {`{"a\"b":1}`, func(e *audit.Entry) { e.Unknown = `{"a\"b":1}` }},
		"escaped name":           {`{"\u0070ath":"/a"}`, func(e *audit.Entry) { e.Path = "/a" }},
		"name of another case":   {`{"Path":"/a"}`, func(e *audit.Entry) { e.Unknown = `{"Path":"/a"}` }},
		"last one counts":        {`{"path":"/a","path":"/b","status":1,"status":2}`, func(e *audit.Entry) { e.Path, e.Status = "/b", 2 }},
		"last one is null":       {`{"path":"/a","path":null,"status":1,"status":null,"ttl":5,"ttl":null}`, func(*audit.Entry) {}},
		"texts of other types": {`{"client_ip":127,"method":true,"path":["/a"],"payload":{"a": 1},"workspace":false}`, func(e *audit.Entry) {
			e.ClientIP, e.Method, e.Path, e.Payload, e.Workspace = "127", "true", `["/a"]`, `{"a": 1}`, "false"
		}},
		"numbers as text": {`{"request_timestamp":"1663013700","status":"404","ttl":"12"}`, func(e *audit.Entry) {
			e.Timestamp, e.Status, e.TTL = 1663013700, 404, 12
		}},
		"numbers with a point": {`{"request_timestamp":1663013700.987,"status":2e2,"ttl":1.5}`, func(e *audit.Entry) {
			e.Timestamp, e.Status, e.TTL = 1663013700, 200, 1
		}},
		"numbers that are not numbers": {`{"request_timestamp":"yesterday","status":{},"ttl":true}`, func(e *audit.Entry) {
			e.Unknown = `{"request_timestamp":"yesterday","status":{},"ttl":true}`
		}},
		"a number after all": {`{"status":"no","status":200}`, func(e *audit.Entry) { e.Status = 200 }},
		"numbers too large": {`{"request_timestamp":99999999999999999999,"status":-1e300,"ttl":1e999}`, func(e *audit.Entry) {
			e.Unknown = `{"request_timestamp":99999999999999999999,"status":-1e300,"ttl":1e999}`
		}},
		"largest":                     {`{"ttl":9223372036854775807}`, func(e *audit.Entry) { e.TTL = math.MaxInt64 }},
		"beyond 2^53":                 {`{"ttl":9007199254740993}`, func(e *audit.Entry) { e.TTL = 9007199254740993 }},
		"unknown, half a pair":        {`{"a":"\ud83d","b":["\u0041",1.50]}`, func(e *audit.Entry) { e.Unknown = "{\"a\":\"\uFFFD\",\"b\":[\"\\u0041\",1.50]}" }},
		"unknown, names twice within": {`{"a":{"b":1,"b":2},"c":3}`, func(e *audit.Entry) { e.Unknown = `{"a":"{\"b\":1,\"b\":2}","c":3}` }},
		"odd numbers":                 {`{"request_timestamp":"0x10","status":"1_0","ttl":"NaN"}`, func(e *audit.Entry) { e.Unknown = `{"request_timestamp":"0x10","status":"1_0","ttl":"NaN"}` }},
		"overdue":                     {`{"ttl":-5}`, func(e *audit.Entry) { e.TTL = 0 }},
		"overdue, text":               {`{"ttl":"-5"}`, func(e *audit.Entry) { e.TTL = 0 }},
		"escapes": {`{"path":"\"\\\/\b\f\n\r\t\u0000\u00e9\u20AC\ud83d\ude00"}`, func(e *audit.Entry) {
			e.Path = "\"\\/\b\f\n\r\t\x00é€😀"
		}},
		"half a pair":     {`{"path":"a\ud83d","method":"\ude00b","payload":"\ud83d\ud83d\ude00\ud83dA\ud83d\n"}`, func(e *audit.Entry) { e.Path, e.Method, e.Payload = "a\uFFFD", "\uFFFDb", "\uFFFD😀\uFFFDA\uFFFD\n" }},
		"bytes as is":     {"{\"path\":\"/\xff\xc3\x28\\u0041\"}", func(e *audit.Entry) { e.Path = "/\xff\xc3(A" }},
		"DEL and C1":      {"{\"path\":\"\x7f\u0080\u2028\"}", func(e *audit.Entry) { e.Path = "\x7f\u0080\u2028" }},
		"odd request id":  {`{"request_id":"a b"}`, func(e *audit.Entry) { e.RequestID = "a b" }},
		"number as an id": {`{"request_id":12}`, func(e *audit.Entry) { e.RequestID = "12" }},
	} {
		t.Run(name, func(t *testing.T) {
			want := none
			c.want(&want)
			want.ID = audit.Identity(&want)
			if want.Timestamp == 0 {
				want.Timestamp, want.TimestampGuessed = pageDate.Unix(), true
			}
			want.Path = strings.ToValidUTF8(want.Path, "\uFFFD")
			if got := decodeRow(t, c.row); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// Kong sends timestamps in other units, as text, or nothing that is one. The entry
// gets a time near the truth, and says that Kong did not sort by it.
func TestTimestamps(t *testing.T) {
	const at = 1699999000
	for raw, c := range map[string]struct {
		want    int64
		guessed bool
		unknown string
	}{
		`1699999000`:                    {at, false, ``},
		`1699999000.9`:                  {at, false, ``},
		`"1699999000"`:                  {at, false, ``},
		`1.699999e9`:                    {at, false, ``},
		`1699999000123`:                 {at, true, ``},
		`"1699999000123"`:               {at, true, ``},
		`1699999000123456`:              {at, true, ``},
		`1699999000123456789`:           {at, true, ``},
		`"2023-11-14T21:56:40Z"`:        {at, true, ``},
		`"2023-11-14T22:56:40.5+01:00"`: {at, true, ``},
		`"2023-11-14 21:56:40"`:         {at, true, ``},
		`"2023-11-14 21:56:40+00"`:      {at, true, ``},
		`null`:                          {pageDate.Unix(), true, ``},
		`""`:                            {pageDate.Unix(), true, `{"request_timestamp":""}`},
		`0`:                             {pageDate.Unix(), true, `{"request_timestamp":0}`},
		`1`:                             {pageDate.Unix(), true, `{"request_timestamp":1}`},
		`-5`:                            {pageDate.Unix(), true, `{"request_timestamp":-5}`},
		`99999999999`:                   {pageDate.Unix(), true, `{"request_timestamp":99999999999}`},
		`9223372036854775807`:           {pageDate.Unix(), true, `{"request_timestamp":9223372036854775807}`},
		`-9223372036854775808`:          {pageDate.Unix(), true, `{"request_timestamp":-9223372036854775808}`},
		`1e300`:                         {pageDate.Unix(), true, `{"request_timestamp":1e300}`},
		`"yesterday"`:                   {pageDate.Unix(), true, `{"request_timestamp":"yesterday"}`},
		`"9999-01-01T00:00:00Z"`:        {pageDate.Unix(), true, `{"request_timestamp":"9999-01-01T00:00:00Z"}`},
		`{"a":1}`:                       {pageDate.Unix(), true, `{"request_timestamp":{"a":1}}`},
	} {
		got := decodeRow(t, `{"request_id":"","request_timestamp":`+raw+`}`)
		if got.Timestamp != c.want || got.TimestampGuessed != c.guessed || got.Unknown != c.unknown {
			t.Errorf("%s: %d, guessed %v, unknown %s", raw, got.Timestamp, got.TimestampGuessed, got.Unknown)
		}
		// The date of another page changes nothing about which row it is.
		page, err := decodePage(`{"data":[{"request_timestamp":`+raw+`}]}`, requestLog, pageDate.Add(time.Hour), nil)
		if err != nil || page.Entries[0].ID != got.ID {
			t.Errorf("%s: ID %s, then %s, %v", raw, got.ID, page.Entries[0].ID, err)
		}
	}
	// A page's Date that lies in the past makes no timestamp absurd.
	page, err := decodePage(`{"data":[{"request_timestamp":1699999000}]}`, requestLog, time.Unix(0, 0), nil)
	if err != nil || page.Entries[0].Timestamp != at {
		t.Errorf("%+v, %v", page.Entries, err)
	}
}

// Payloads leave as JSON: half a surrogate pair in one would make strict readers
// refuse the event. Plain text stays as it is.
func TestSurrogatesInPayload(t *testing.T) {
	for payload, want := range map[string]string{
		`{"a":"\ud83d"}`:                   `{"a":"\ufffd"}`,
		`{"a":"\uDE00\ud83d\ud83d\ude00"}`: `{"a":"\ufffd\ufffd\ud83d\ude00"}`,
		`["\\ud83d","\u00e9\ud83dx"]`:      `["\\ud83d","\u00e9\ufffdx"]`,
		`{"a":"\ud83d\u0041"}`:             `{"a":"\ufffd\u0041"}`,
		`{"a":"\ud8`:                       `{"a":"\ud8`,
		`{"a":"\`:                          `{"a":"\`,
		`C:\ud83d`:                         `C:\ud83d`,
	} {
		raw, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		if got := decodeRow(t, `{"payload":`+string(raw)+`}`); got.Payload != want {
			t.Errorf("%s: got %s, want %s", payload, got.Payload, want)
		}
	}
}

// A row without an id is the same row at the next read, when its ttl is another.
func TestIdentityAtNextRead(t *testing.T) {
	row := `{"request_id":"","path":"/","request_timestamp":5,"ttl":%s}`
	first := decodeRow(t, fmt.Sprintf(row, "100"))
	for _, ttl := range []string{"99", "null", "-3", `"?"`} {
		if again := decodeRow(t, fmt.Sprintf(row, ttl)); again.ID != first.ID {
			t.Errorf("ttl %s: %s, first %s", ttl, again.ID, first.ID)
		}
	}
}

// A row may be as wide as a page is large.
func TestDecodeWideRow(t *testing.T) {
	var b strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&b, `,"field-%d":1`, i)
	}
	unknown := "{" + b.String()[1:] + "}"
	if got := decodeRow(t, unknown); got.Unknown != unknown {
		t.Errorf("%d bytes of unknown fields, want %d", len(got.Unknown), len(unknown))
	}
}

func TestDecodeEnvelope(t *testing.T) {
	for name, c := range map[string]struct {
		raw    string
		rows   int
		offset string
	}{
		"last page":                {`{"data":[{},{}],"next":null}`, 2, ""},
		"empty":                    {`{"data":[]}`, 0, ""},
		"Lua's empty":              {`{"data": { } ,"next":null}`, 0, ""},
		"more":                     {`{"data":[{}],"next":"/audit/requests?offset=b","offset":"a"}`, 1, "a"},
		"other order":              {`{"offset":"a","next":null,"total":9,"data":[{}]}`, 1, "a"},
		"escaped":                  {`{"dat\u0061":[{}],"offset":"WzFd\/w=="}`, 1, "WzFd/w=="},
		"offset null":              {`{"data":[{}],"offset":null}`, 1, ""},
		"offset empty":             {`{"data":[{}],"offset":"","next":""}`, 1, ""},
		"offset number":            {`{"data":[{}],"offset":12}`, 1, "12"},
		"only next":                {`{"data":[{}],"next":"\/audit\/requests?size=1&offset=W%2B%3D"}`, 1, "W+="},
		"only next, with a server": {`{"data":[{}],"next":"http://kong:8001/audit/requests?offset=a"}`, 1, "a"},
		"white space":              {"\r\n\t {\n\"data\"\t:\r[ { } , { } ] } \n", 2, ""},
		"unknown twice":            {`{"data":[],"x":1,"x":2}`, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			page, err := decodePage(c.raw, requestLog, pageDate, nil)
			if err != nil || len(page.Entries) != c.rows || page.Offset != c.offset {
				t.Errorf("%d entries, offset %q, %v", len(page.Entries), page.Offset, err)
			}
		})
	}
}

// No part of a page is ever a page.
func TestDecodePrefixes(t *testing.T) {
	raw := page(3)
	for n := range len(raw) {
		if p, err := decodePage(raw[:n], requestLog, pageDate, nil); err == nil {
			t.Fatalf("the first %d bytes are a page of %d entries", n, len(p.Entries))
		}
	}
}

// Pages with single bytes changed: what is still taken is JSON.
func TestDecodeMutations(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const odd = "\"\\{}[],:0123456789.eE+-truefalsn \n\x00\x1f\xff"
	raw := []byte(page(3))
	for range 5_000 {
		b := []byte(string(raw))
		for range 1 + r.IntN(3) {
			switch at := r.IntN(len(b)); r.IntN(3) {
			case 0:
				b[at] = odd[r.IntN(len(odd))]
			case 1:
				b = append(b[:at], b[at+1:]...)
			default:
				b = append(b[:at], append([]byte{odd[r.IntN(len(odd))]}, b[at:]...)...)
			}
		}
		checkPage(t, string(b))
	}
}

var idPattern = regexp.MustCompile(`^[-_A-Za-z0-9]{1,128}$`)

// checkPage holds a page against an independent decoder.
func checkPage(t *testing.T, raw string) {
	t.Helper()
	page, err := decodePage(raw, requestLog, pageDate, nil)
	if err != nil {
		if page.Entries != nil || page.Offset != "" {
			t.Fatalf("entries along with %v", err)
		}
		return
	}
	var envelope map[string]json.RawMessage
	if err := json.Unmarshal([]byte(raw), &envelope); err != nil {
		t.Fatalf("taken, though it is no JSON object: %v: %.300q", err, raw)
	}
	var rows []map[string]json.RawMessage // numbers may be larger than a float64
	if err := json.Unmarshal(envelope["data"], &rows); err != nil && strings.TrimSpace(strings.Trim(string(envelope["data"]), "{}")) != "" {
		t.Fatalf("taken, though data is no list of objects: %v: %.300q", err, raw)
	}
	if len(rows) != len(page.Entries) {
		t.Fatalf("%d entries, want %d: %.300q", len(page.Entries), len(rows), raw)
	}
	for i, row := range rows {
		e := page.Entries[i]
		if !idPattern.MatchString(e.ID) {
			t.Fatalf("ID %q", e.ID)
		}
		var path *string
		if err := json.Unmarshal(row["path"], &path); err == nil && path != nil && utf8.ValidString(raw) && e.Path != *path {
			t.Fatalf("path %q, want %q", e.Path, *path)
		}
		var status *int32
		if err := json.Unmarshal(row["status"], &status); err == nil && status != nil && e.Status != int(*status) {
			t.Fatalf("status %d, want %d", e.Status, *status)
		}
		var unknown map[string]json.RawMessage
		if e.Unknown != "" && json.Unmarshal([]byte(e.Unknown), &unknown) != nil {
			t.Fatalf("unknown fields are not JSON: %.300q", e.Unknown)
		}
		for name, v := range unknown {
			if utf8.ValidString(raw) && !bytes.Equal(row[name], v) {
				t.Fatalf("unknown field %q is %s, want %s", name, v, row[name])
			}
		}
		if !utf8.ValidString(e.Unknown) || e.TTL < audit.NoTTL {
			t.Fatalf("%+v", e)
		}
	}
}

func FuzzDecodePage(f *testing.F) {
	f.Add(page(2))
	for _, s := range []string{
		``, `{}`, `{"data":{}}`, `{"data":[{},{"a":1,"a":null}],"next":null}`, `{"data":[{"status":"x","path":["\ud83d"]}],"offset":5}`,
		`{"data":[null]}`, `{"data":[],"data":[{}]}`, `{"data":[],"next":"?offset=%zz"}`, `{"data":[{"request_id":"é","ttl":-1e400}]}`,
		"{\"data\":[{\"\xff\":\"\xff\",\"path\":\"\xff\"}]}", `[1,{"data":[]}]`, `{"data":[{"request_timestamp":"12","k":{"k":[]}}]} `,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		checkPage(t, raw)
	})
}

// page returns a page of n rows of about 450 bytes.
func page(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	b.WriteString(`{"data":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		payload := "null"
		if i%3 == 0 {
			payload = `"{\"name\":\"svc-1\",\"host\":\"h.internal\",\"tags\":[\"caf\u00e9\"]}"`
		}
		fmt.Fprintf(&b, `{"request_id":"%032x","request_timestamp":%d,"ttl":2591940,"client_ip":"127.0.0.1","method":"GET","status":200,`+
			`"workspace":"0da4afe7-44ad-4e81-a953-5d2923ce68ae","rbac_user_id":"2e959b45-0053-41cc-9c2c-5458d0964331","rbac_user_name":"admin",`+
			`"request_source":null,"removed_from_payload":null,"signature":null,"path":"/services/2f9c1d7e-5b77-4a9e-8d2b-9c1e7f6a4d12/routes?size=100","payload":%s}`, r.Uint64(), 1663013700+i, payload)
	}
	b.WriteString(`],"next":"/audit/requests?offset=abc","offset":"abc"}`)
	return b.String()
}

func decodePage(text string, log logName, date time.Time, key *rsa.PublicKey) (audit.Page, error) {
	return newPageReader([]byte(text), log, date, key).decode()
}

// BenchmarkDecodePage is what a row costs from the body to the entry.
func BenchmarkDecodePage(b *testing.B) {
	const n = 1000
	raw := []byte(page(n))
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if p, err := newPageReader(raw, requestLog, pageDate, nil).decode(); err != nil || len(p.Entries) != n {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
	b.ReportMetric(float64(len(raw))/n, "B/entry")
}
