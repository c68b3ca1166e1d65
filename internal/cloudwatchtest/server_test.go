package cloudwatchtest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func fixed(o Options) *Server {
	o.Streams = []string{"kong"}
	if o.Now == nil {
		o.Now = func() time.Time { return noon }
	}
	return New(o)
}

// call makes a call that is signed for the service, as far as the server looks.
func call(t *testing.T, s *Server, operation, body string) (status int, answer map[string]any) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("X-Amz-Target", targetPrefix+operation)
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+AccessKeyID+"/20260301/"+Region+"/logs/aws4_request, SignedHeaders=host, Signature=0")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%s: %v", operation, err)
	}
	return w.Code, answer
}

type sent struct {
	Message   string `json:"message"`
	Timestamp int64  `json:"timestamp"`
}

func put(t *testing.T, s *Server, events ...sent) (int, map[string]any) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"logGroupName": Group, "logStreamName": "kong", "logEvents": events})
	if err != nil {
		t.Fatal(err)
	}
	return call(t, s, "PutLogEvents", string(body))
}

func at(d time.Duration) int64 { return noon.Add(d).UnixMilli() }

func TestPutLogEvents(t *testing.T) {
	const day = 24 * time.Hour
	many := func(n int, size int) (list []sent) {
		for range n {
			list = append(list, sent{strings.Repeat("x", size), at(0)})
		}
		return list
	}
	for name, c := range map[string]struct {
		events []sent
		want   string // a code, or part of the answer
		kept   int
	}{
		"one":              {many(1, 1), "nextSequenceToken", 1},
		"as many as can":   {many(10_000, 1), "nextSequenceToken", 10_000},
		"too many":         {many(10_001, 1), "InvalidParameterException", 0},
		"as large as can":  {many(2, 524_262), "nextSequenceToken", 2},
		"too large":        {append(many(2, 524_262), sent{"x", at(0)}), "InvalidParameterException", 0},
		"event too large":  {many(1, 1_000_001), "InvalidParameterException", 0},
		"empty":            {many(1, 0), "InvalidParameterException", 0},
		"none":             {nil, "InvalidParameterException", 0},
		"out of order":     {[]sent{{"a", at(time.Second)}, {"b", at(0)}}, "InvalidParameterException", 0},
		"a day":            {[]sent{{"a", at(-day)}, {"b", at(0)}}, "nextSequenceToken", 2},
		"more than a day":  {[]sent{{"a", at(-day - time.Millisecond)}, {"b", at(0)}}, "InvalidParameterException", 0},
		"14 days":          {[]sent{{"a", at(-14 * day)}}, "nextSequenceToken", 1},
		"older":            {[]sent{{"a", at(-14*day - time.Millisecond)}, {"b", at(-14 * day)}}, "tooOldLogEventEndIndex:1", 1},
		"two hours ahead":  {[]sent{{"a", at(2 * time.Hour)}}, "nextSequenceToken", 1},
		"further ahead":    {[]sent{{"a", at(2 * time.Hour)}, {"b", at(2*time.Hour + time.Millisecond)}}, "tooNewLogEventStartIndex:1", 1},
		"before the epoch": {[]sent{{"a", -1}}, "InvalidParameterException", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := fixed(Options{})
			status, answer := put(t, s, c.events...)
			if !strings.Contains(fmt.Sprint(answer), c.want) || (status == http.StatusOK) == strings.Contains(c.want, "Exception") {
				t.Errorf("%d %v", status, answer)
			}
			if n := len(s.Events()); n != c.kept {
				t.Errorf("%d kept", n)
			}
		})
	}
	s := fixed(Options{Retention: 3})
	if _, answer := put(t, s, sent{"a", at(-3*day - 1)}, sent{"b", at(-3*day + day/2)}); !strings.Contains(fmt.Sprint(answer), "expiredLogEventEndIndex:1") {
		t.Errorf("%v", answer)
	}
	if status, answer := call(t, s, "PutLogEvents", `{"logGroupName":"/kong/audit","logStreamName":"other","logEvents":[{"message":"a","timestamp":1}]}`); status != 400 {
		t.Errorf("no such stream: %v", answer)
	}
}

// read reads all pages, and returns the UIDs.
func read(t *testing.T, s *Server, from, to int64) (uids []string, pages int) {
	t.Helper()
	token := ""
	for {
		body := fmt.Sprintf(`{"logGroupName":%q,"logStreamNames":["kong"],"startTime":%d,"endTime":%d`, Group, from, to)
		if token != "" {
			body += fmt.Sprintf(`,"nextToken":%q`, token)
		}
		status, answer := call(t, s, "FilterLogEvents", body+"}")
		if status != http.StatusOK {
			t.Fatalf("%d %v", status, answer)
		}
		pages++
		events, _ := answer["events"].([]any)
		for _, e := range events {
			m, _ := e.(map[string]any)
			message, _ := m["message"].(string)
			id := identify([]byte(message))
			uids = append(uids, id.uid())
		}
		next, ok := answer["nextToken"].(string)
		if !ok {
			return uids, pages
		}
		if next == token {
			t.Fatal("the same token")
		}
		token = next
	}
}

func TestFilterLogEvents(t *testing.T) {
	now := noon
	s := fixed(Options{ReadsPerSecond: -1, VisibleAfter: time.Minute, Now: func() time.Time { return now }, Faults: Faults{EmptyPages: 0.5}})
	pad := strings.Repeat("x", 90_000)
	for i := range 40 {
		put(t, s, sent{fmt.Sprintf(`{"UID":"u%d","pad":%q}`, i, pad), at(-time.Duration(i) * time.Second)})
	}
	if uids, _ := read(t, s, 0, at(time.Hour)); len(uids) != 0 {
		t.Errorf("visible at once: %v", uids)
	}
	now = noon.Add(time.Minute)
	s.Remove("u7")
	s.Double("u8")
	uids, _ := read(t, s, at(-10*time.Second), at(0))
	if got := strings.Join(uids, " "); got != "u0 u1 u2 u3 u4 u5 u6 u8 u9 u10 u8" {
		t.Errorf("%s", got)
	}
	if uids, pages := read(t, s, 0, at(0)); len(uids) != 40 || pages < 5 {
		t.Errorf("%d events on %d pages", len(uids), pages)
	}
}

func TestReadersQuota(t *testing.T) {
	s := fixed(Options{})
	for i := range 7 {
		status, answer := call(t, s, "FilterLogEvents", `{"logGroupName":"/kong/audit"}`)
		if (status != http.StatusOK) != (i >= ReadsPerSecond) {
			t.Errorf("call %d: %v", i, answer)
		}
	}
}
