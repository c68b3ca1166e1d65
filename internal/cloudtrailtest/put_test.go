package cloudtrailtest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// goodData is eventData that the service takes, with every field of its table.
func goodData(uid string, change ...func(map[string]any)) string {
	d := map[string]any{
		"version":             "3.9.1.1",
		"userIdentity":        map[string]any{"type": "KongRBACUser", "principalId": "2e959b45-0053-41cc-9c2c-5458d0964331", "details": map[string]any{"rbac_user_name": "ann"}},
		"userAgent":           "curl/8",
		"eventSource":         "kong-gateway",
		"eventName":           "GET/event-hooks",
		"eventTime":           "2026-01-02T03:04:05Z",
		"UID":                 uid,
		"requestParameters":   map[string]any{"queryParameters": "size=100"},
		"responseElements":    map[string]any{},
		"errorCode":           "404",
		"errorMessage":        "not found",
		"sourceIPAddress":     "172.31.76.246",
		"recipientAccountId":  account,
		"additionalEventData": map[string]any{"status": 200, "workspace": "default"},
	}
	for _, f := range change {
		f(d)
	}
	b, err := json.Marshal(d, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	return string(b)
}

func set(name string, value any) func(map[string]any) {
	return func(d map[string]any) { d[name] = value }
}

func without(name string) func(map[string]any) { return func(d map[string]any) { delete(d, name) } }

func identity(name string, value any) func(map[string]any) {
	return func(d map[string]any) {
		id, ok := d["userIdentity"].(map[string]any)
		if !ok {
			panic("userIdentity is not an object")
		}
		if value == nil {
			delete(id, name)
		} else {
			id[name] = value
		}
	}
}

type wireEvent struct {
	ID       string `json:"id,omitempty"`
	Data     string `json:"eventData,omitempty"`
	Checksum string `json:"eventDataChecksum,omitempty"`
}

func bodyOf(events ...wireEvent) []byte {
	if events == nil {
		events = []wireEvent{}
	}
	b, err := json.Marshal(map[string]any{"auditEvents": events})
	if err != nil {
		panic(err)
	}
	return b
}

func good(ids ...string) []byte {
	var events []wireEvent
	for _, id := range ids {
		events = append(events, wireEvent{ID: id, Data: goodData(id)})
	}
	return bodyOf(events...)
}

type answer struct {
	status     int
	header     http.Header
	Type       string `json:"__type"`
	Message    string
	Successful []struct{ ID, EventID string }
	Failed     []struct{ ID, ErrorCode, ErrorMessage string }
}

// code is the error code of a refused call, "" if it went well.
func (a answer) code() string { return a.Type[strings.Index(a.Type, "#")+1:] }

func (a answer) String() string {
	return fmt.Sprintf("%d %s %q, %d successful, failed %v", a.status, a.Type, a.Message, len(a.Successful), a.Failed)
}

func put(t *testing.T, s *Server, query string, body []byte) answer {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/PutAuditEvents?"+query, bytes.NewReader(body)))
	a := answer{status: w.Code, header: w.Header()}
	if err := json.Unmarshal(w.Body.Bytes(), &a, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatalf("answer %d is not JSON: %v", w.Code, err)
	}
	return a
}

var toChannel = "channelArn=" + url.QueryEscape(ChannelARN)

func unsigned(change ...func(*Options)) *Server {
	o := Options{Unsigned: true}
	for _, f := range change {
		f(&o)
	}
	return New(o)
}

func TestPutAccepts(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)
	s := unsigned(func(o *Options) { o.Now = func() time.Time { return now } })
	a := put(t, s, toChannel, good("one", "two"))
	if a.status != 200 || len(a.Successful) != 2 || len(a.Failed) != 0 || a.Successful[1].ID != "two" {
		t.Fatalf("got %v", a)
	}
	got := s.Events()
	if len(got) != 2 || got[0].ID != "one" || s.eventID(got[0].Seq) != a.Successful[0].EventID || got[0].Data != goodData("one") ||
		got[0].UID != "one" || got[0].Place != "kong-gateway" || !got[0].Received.Equal(now) || got[0].Repeat ||
		!got[0].At.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("stored %+v", got)
	}
	if s.eventID(got[0].Seq) == s.eventID(got[1].Seq) || len(s.eventID(got[0].Seq)) != 36 {
		t.Errorf("event ids %q and %q", s.eventID(got[0].Seq), s.eventID(got[1].Seq))
	}
	put(t, s, toChannel, good("two"))
	if c := s.Counts(); c.Calls != 2 || c.Events != 3 || c.Distinct != 2 || c.Repeats != 1 || s.Times("two") != 2 || !s.Events()[2].Repeat {
		t.Errorf("after a repeat: %+v", c)
	}
}

func TestCallRefused(t *testing.T) {
	many := func(n int) []byte {
		var events []wireEvent
		for i := range n {
			events = append(events, wireEvent{ID: fmt.Sprint("id-", i), Data: goodData("u")})
		}
		return bodyOf(events...)
	}
	padded := func(n int) []byte {
		b := good("a")
		return append(b, bytes.Repeat([]byte{' '}, n-len(b))...)
	}
	other := strings.Replace(ChannelARN, "1111-", "1110-", 1)
	for name, c := range map[string]struct {
		query string
		body  []byte
		code  string
	}{
		"100 events":          {toChannel, many(100), ""},
		"101 events":          {toChannel, many(101), "ValidationException"},
		"no events":           {toChannel, bodyOf(), "ValidationException"},
		"no auditEvents":      {toChannel, []byte(`{}`), "ValidationException"},
		"1 MB":                {toChannel, padded(MaxBody), ""},
		"1 MB and a byte":     {toChannel, padded(MaxBody + 1), "ValidationException"},
		"not JSON":            {toChannel, []byte(`{"auditEvents":[`), "SerializationException"},
		"not UTF-8":           {toChannel, bytes.Replace(good("a"), []byte("curl"), []byte("c\xffrl"), 1), "SerializationException"},
		"empty body":          {toChannel, nil, "SerializationException"},
		"text behind":         {toChannel, append(good("a"), '{'), "SerializationException"},
		"events not a list":   {toChannel, []byte(`{"auditEvents":{}}`), "SerializationException"},
		"data not a string":   {toChannel, []byte(`{"auditEvents":[{"id":"a","eventData":{}}]}`), "SerializationException"},
		"no id":               {toChannel, bodyOf(wireEvent{Data: "{}"}), "ValidationException"},
		"no data":             {toChannel, bodyOf(wireEvent{ID: "a"}), "ValidationException"},
		"null data":           {toChannel, []byte(`{"auditEvents":[{"id":"a","eventData":null}]}`), "ValidationException"},
		"id of 128":           {toChannel, good(strings.Repeat("x", 128)), ""},
		"id of 129":           {toChannel, good(strings.Repeat("x", 129)), "ValidationException"},
		"id with all signs":   {toChannel, good("-_AZaz09"), ""},
		"id with a dot":       {toChannel, good("a.b"), "ValidationException"},
		"id with a letter ä":  {toChannel, good("ä"), "ValidationException"},
		"the same id twice":   {toChannel, good("a", "b", "a"), "DuplicatedAuditEventId"},
		"no channel":          {"", good("a"), "ValidationException"},
		"channel no ARN":      {"channelArn=channel", good("a"), "InvalidChannelARN"},
		"another ARN":         {"channelArn=arn:aws:s3:::bucket", good("a"), "InvalidChannelARN"},
		"unknown channel":     {"channelArn=" + url.QueryEscape(other), good("a"), "ChannelNotFound"},
		"external id":         {toChannel + "&externalId=a%2Bb=,.@:/-", good("a"), ""},
		"external id short":   {toChannel + "&externalId=a", good("a"), "ValidationException"},
		"external id long":    {toChannel + "&externalId=" + strings.Repeat("a", 1225), good("a"), "ValidationException"},
		"external id strange": {toChannel + "&externalId=a%20b", good("a"), "ValidationException"},
	} {
		t.Run(name, func(t *testing.T) {
			s := unsigned()
			a := put(t, s, c.query, c.body)
			if a.code() != c.code {
				t.Fatalf("got %v, want %q", a, c.code)
			}
			if c.code != "" && (a.status < 400 || len(s.Events()) != 0 || s.Counts().Codes[c.code] != 1 || s.Counts().Refused != 1) {
				t.Errorf("status %d, counts %+v", a.status, s.Counts())
			}
		})
	}
}

func TestTooLargeIs413(t *testing.T) {
	if a := put(t, unsigned(), toChannel, make([]byte, MaxBody+1)); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("got %v", a)
	}
}

func TestExternalIDRequired(t *testing.T) {
	s := unsigned(func(o *Options) { o.ExternalID = "secret-word" })
	if a := put(t, s, toChannel+"&externalId=other", good("a")); a.code() != "ChannelInsufficientPermission" {
		t.Errorf("wrong id: %v", a)
	}
	if a := put(t, s, toChannel+"&externalId=secret-word", good("a")); a.status != 200 {
		t.Errorf("right id: %v", a)
	}
}

func TestErrorsAreInBothPlaces(t *testing.T) {
	a := put(t, unsigned(), "channelArn=x", good("a"))
	if header := a.header.Get("X-Amzn-ErrorType"); a.Message == "" || a.Type != "com.amazonaws.cloudtraildata#InvalidChannelARN" || !strings.HasPrefix(header, "InvalidChannelARN:http://") {
		t.Errorf("%v, header %q", a, header)
	}
}

func TestQuota(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := unsigned(func(o *Options) { o.Now = func() time.Time { return now } })
	for i := range CallsPerSecond {
		if a := put(t, s, toChannel, good("a")); a.status != 200 {
			t.Fatalf("call %d: %v", i, a)
		}
		now = now.Add(time.Millisecond)
	}
	if a := put(t, s, toChannel, good("a")); a.code() != "ThrottlingException" || a.status != 400 {
		t.Fatalf("over the quota: %v", a)
	}
	now = now.Add(900 * time.Millisecond) // the first call is now one second old
	if a := put(t, s, toChannel, good("a")); a.status != 200 {
		t.Fatalf("after a second: %v", a)
	}
	if a := put(t, s, toChannel, good("a")); a.code() != "ThrottlingException" {
		t.Errorf("the window slides by one call: %v", a)
	}
	if c := s.Counts(); c.Throttled != 2 || c.Events != CallsPerSecond+1 {
		t.Errorf("counts %+v", c)
	}
	free := unsigned(func(o *Options) { o.CallsPerSecond = -1 })
	for range 3 * CallsPerSecond {
		if a := put(t, free, toChannel, good("a")); a.status != 200 {
			t.Fatalf("without a quota: %v", a)
		}
	}
}

func TestLean(t *testing.T) {
	s := unsigned(func(o *Options) { o.Lean = true })
	a := put(t, s, toChannel, bodyOf(wireEvent{ID: "a", Data: `{"not":"an event"}`}, wireEvent{ID: "b", Data: "x"}))
	if len(a.Successful) != 2 || s.Times("a") != 1 || s.Times("c") != 0 || s.Counts().Distinct != 2 || len(s.Events()) != 0 {
		t.Errorf("got %v, %+v", a, s.Counts())
	}
	if a := put(t, s, toChannel, good("a", "a")); a.code() != "DuplicatedAuditEventId" {
		t.Errorf("got %v", a)
	}
	if a := put(t, s, toChannel, bodyOf(wireEvent{ID: "check", Data: "{}"})); len(a.Failed) != 1 || s.Times("check") != 0 {
		t.Errorf("got %v for an event without members", a)
	}
}

func TestUnknownOperation(t *testing.T) {
	w := httptest.NewRecorder()
	unsigned().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/Other", nil))
	b, err := io.ReadAll(w.Body)
	if err != nil || w.Code != 404 || !bytes.Contains(b, []byte("UnknownOperationException")) {
		t.Errorf("got %d %s, %v", w.Code, b, err)
	}
}

func FuzzPut(f *testing.F) {
	f.Add(good("a", "b"))
	f.Add(bodyOf(wireEvent{ID: "a", Data: `{"version":"\u0041"}`, Checksum: "x"}))
	f.Add([]byte(`{"auditEvents":[{"id":"a","eventData":"{\"version\":1}"},{}]} `))
	f.Add([]byte(`{"auditEvents":null}`))
	s := unsigned(func(o *Options) { o.CallsPerSecond = -1; o.Digest = true })
	lean := unsigned(func(o *Options) { o.CallsPerSecond = -1; o.Lean = true })
	f.Fuzz(func(t *testing.T, body []byte) {
		a, b := put(t, s, toChannel, body), put(t, lean, toChannel, body)
		if a.status != b.status || a.code() != b.code() {
			t.Errorf("strict says %v, lean says %v", a, b)
		}
		if a.status == 200 && len(a.Successful)+len(a.Failed) != len(b.Successful)+len(b.Failed) {
			t.Errorf("strict answers for %d events, lean for %d", len(a.Successful)+len(a.Failed), len(b.Successful)+len(b.Failed))
		}
	})
}
