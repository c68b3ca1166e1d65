package trigger

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func httpLog(body io.Reader, password string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, HTTPLogPath, body)
	if password != "" {
		r.SetBasicAuth("kong", password)
	}
	return r
}

func TestHTTPLog(t *testing.T) {
	const password = "log-secret"
	nested := `{"request":{"request_id":"nested","headers":{"kong-admin-token":"hidden"}},"request_id":"a1","response":{}}`
	for name, test := range map[string]struct {
		body, password string
		status         int
		ids            []string
		calls, polls   int
	}{
		"object":              {`{"request_id":"a1"}`, password, 202, []string{"a1"}, 1, 0},
		"array":               {`[{"request_id":"a1"},{"request_id":"b2"}]`, password, 202, []string{"a1", "b2"}, 1, 0},
		"whole entry":         {nested, password, 202, []string{"a1"}, 1, 0},
		"next password":       {`{"request_id":"a1"}`, "next", 202, []string{"a1"}, 1, 0},
		"no id":               {`{}`, password, 202, nil, 1, 0},
		"id of another form":  {`{"request_id":"a b"}`, password, 202, nil, 1, 0},
		"id of another type":  {`{"request_id":{"request_id":"x"}}`, password, 202, nil, 1, 0},
		"null id":             {`{"request_id":null}`, password, 202, nil, 1, 0},
		"some without an id":  {`[{"request_id":"a1"},{}]`, password, 202, []string{"a1"}, 1, 1},
		"empty array":         {`[]`, password, 202, nil, 1, 0},
		"bytes of no UTF-8":   {"{\"uri\":\"/\xff\",\"request_id\":\"a1\"}", password, 202, []string{"a1"}, 1, 0},
		"many ids":            {"[" + strings.Repeat(`{"request_id":"`+strings.Repeat("z", 64)+`"},`, 1500) + `{}]`, password, 202, slices.Repeat([]string{strings.Repeat("z", 64)}, 1500), 2, 1},
		"wrong password":      {`{"request_id":"a1"}`, "guess", 401, nil, 0, 0},
		"no password":         {`{"request_id":"a1"}`, "", 401, nil, 0, 0},
		"no JSON":             {`request_id=a1`, password, 400, nil, 0, 0},
		"text":                {`"a1"`, password, 400, nil, 0, 0},
		"array of ids":        {`["a1"]`, password, 400, nil, 0, 0},
		"cut off":             {`[{"request_id":"a1"}`, password, 400, nil, 0, 0},
		"two objects":         {`{"request_id":"a1"}{"request_id":"b2"}`, password, 400, nil, 0, 0},
		"empty":               {``, password, 400, nil, 0, 0},
		"blank":               {"\n ", password, 400, nil, 0, 0},
		"more than is read":   {`{"x":"` + strings.Repeat("x", maxHTTPLog) + `"}`, password, 413, nil, 0, 0},
		"nested without end":  {strings.Repeat(`[`, 100_000), password, 400, nil, 0, 0},
		"wrong password, 413": {strings.Repeat("x", 2*maxHTTPLog), "guess", 413, nil, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			polls := 0
			r := newRelay(Options{
				Secrets: only(HTTPLogPath, password, "next", ""),
				Poll:    func() { polls++ },
			})
			code, reason, _ := answerOf(t, r, httpLog(strings.NewReader(test.body), test.password))
			if code != test.status {
				t.Errorf("%d %s, want %d", code, reason, test.status)
			}
			if code == http.StatusBadRequest && !strings.Contains(reason, errHTTPLog.reason) {
				t.Errorf("the reason is %s", reason)
			}
			if ids, calls := r.noted(); !slices.Equal(ids, test.ids) || calls != test.calls || polls != test.polls {
				t.Errorf("%d ids in %d calls, and %d polls", len(ids), calls, polls)
			}
			if strings.Contains(r.log.String(), "hidden") || strings.Contains(r.log.String(), "guess") {
				t.Error("the log repeats what was sent")
			}
		})
	}
	for name, test := range map[string]struct {
		options Options
		request *http.Request
		status  int
	}{
		"no secret":        {Options{}, httpLog(strings.NewReader(`{}`), "x"), 401},
		"unsigned":         {Options{Unsigned: true}, httpLog(strings.NewReader(`{}`), ""), 202},
		"the other secret": {Options{Secrets: only(HTTPLogPath, password)}, signedPath(t, HTTPLogPath), 401},
		"GET":              {Options{}, httptest.NewRequest(http.MethodGet, HTTPLogPath, nil), 405},
	} {
		if code, reason, _ := answerOf(t, newRelay(test.options), test.request); code != test.status {
			t.Errorf("%s: %d %s, want %d", name, code, reason, test.status)
		}
	}
}

// A signed request that exceeds the rate is refused, but it still shows that
// there is something to read.
func TestRefusedForItsRatePolls(t *testing.T) {
	now := time.Now()
	polls := 0
	r := newRelay(Options{
		Rate: 1, Now: func() time.Time { return now }, Poll: func() { polls++ },
		Secrets: func(path string, _ bool) []string {
			return []string{map[string]string{Path: secretA, EventHookPath: "kong-hook", HTTPLogPath: "log-secret"}[path]}
		},
	})
	for name, request := range map[string]func(secret, id string) *http.Request{
		"trigger": func(secret, id string) *http.Request {
			if secret == "" {
				secret = secretA
			}
			return signed(t, secret, "msg_"+id, now, `{"request_ids":["a1"]}`)
		},
		"event hook": func(secret, id string) *http.Request {
			if secret == "" {
				secret = "kong-hook"
			}
			return signedHook(secret, id)
		},
		"http-log": func(secret, _ string) *http.Request {
			if secret == "" {
				secret = "log-secret"
			}
			return httpLog(strings.NewReader(`{"request_id":"a1"}`), secret)
		},
	} {
		polls = 0
		for i, want := range []int{202, 429, 429} {
			if code, reason, _ := answerOf(t, r, request("", string(rune('a'+i)))); code != want || polls != i {
				t.Errorf("%s %d: %d %s and %d polls, want %d", name, i, code, reason, polls, want)
			}
		}
		if code, _, _ := answerOf(t, r, request(secretB, "z")); code != 401 || polls != 2 {
			t.Errorf("%s with another secret: %d and %d polls", name, code, polls)
		}
	}
	// A trigger that was refused for its rate was not used up.
	now = now.Add(time.Second)
	if code, reason, _ := answerOf(t, r, signed(t, secretA, "msg_b", now, `{}`)); code != 202 {
		t.Errorf("%d %s for a trigger that is sent again", code, reason)
	}
}
