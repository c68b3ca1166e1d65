package cloudtrail

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func TestPutRequest(t *testing.T) {
	srv := serve(t, acceptAll)
	o := at(srv.URL)
	o.ExternalID = "ext/1"
	s := newDestination(t, o)
	e := typical(1)
	e.Payload = "{\"a\":\"\u00e9\\u0001\\\"\\\\\",\n\t\"b\":1}"
	verdicts, err := s.Put(t.Context(), []audit.Entry{e})
	if err != nil || statuses(verdicts) != "A" {
		t.Fatal(verdicts, err)
	}
	c := srv.seen()[0]
	if c.path != "/PutAuditEvents" || c.query["channelArn"][0] != testARN || c.query["externalId"][0] != "ext/1" || len(c.query) != 2 {
		t.Errorf("called %s with %v", c.path, c.query)
	}
	if got := c.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	if got := c.header.Get("Content-Length"); got != fmt.Sprint(c.size) {
		t.Errorf("Content-Length %q of %d bytes", got, c.size)
	}
	scope := "/us-east-1/cloudtrail-data/aws4_request"
	if got := c.header.Get("Authorization"); !strings.HasPrefix(got, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/") || !strings.Contains(got, scope) {
		t.Errorf("Authorization is not SigV4 for %s", scope)
	}
	id, data := s.Event(&e)
	if c.events[0].ID != id || c.events[0].Data != string(data) {
		t.Errorf("sent %+v, want %s", c.events[0], data)
	}
}

func TestPutNothing(t *testing.T) {
	srv := serve(t, acceptAll)
	s := newDestination(t, at(srv.URL))
	if verdicts, err := s.Put(t.Context(), nil); err != nil || len(verdicts) != 0 || len(srv.seen()) != 0 {
		t.Errorf("%v, %v, %d calls", verdicts, err, len(srv.seen()))
	}
}

func TestPutSplits(t *testing.T) {
	t.Run("by number", func(t *testing.T) {
		srv := serve(t, acceptAll)
		s := newDestination(t, at(srv.URL))
		verdicts, err := s.Put(t.Context(), entries(250))
		if err != nil || statuses(verdicts) != strings.Repeat("A", 250) {
			t.Fatal(statuses(verdicts), err)
		}
		var sizes []int
		for _, c := range srv.seen() {
			sizes = append(sizes, len(c.events))
		}
		if !slices.Equal(sizes, []int{100, 100, 50}) {
			t.Errorf("calls of %v events", sizes)
		}
	})
	t.Run("by id", func(t *testing.T) {
		srv := serve(t, acceptAll)
		s := newDestination(t, at(srv.URL))
		es := entries(4)
		es[2].ID, es[3].ID = es[0].ID, es[0].ID
		verdicts, err := s.Put(t.Context(), es)
		if err != nil || statuses(verdicts) != "AAAA" {
			t.Fatal(statuses(verdicts), err)
		}
		var ids [][]string
		for _, c := range srv.seen() {
			ids = append(ids, c.ids())
		}
		if fmt.Sprint(ids) != "[[e0 e1] [e0] [e0]]" {
			t.Errorf("calls %v", ids)
		}
	})
	t.Run("by size", func(t *testing.T) {
		srv := serve(t, acceptAll)
		s := newDestination(t, at(srv.URL))
		es := entries(60)
		for i := range es {
			unit := []string{"x", `"`, `\`, "€", "\x01"}[i%5]
			es[i].Payload = strings.Repeat(unit, 1000*(i+1))
		}
		verdicts, err := s.Put(t.Context(), es)
		if err != nil || statuses(verdicts) != strings.Repeat("A", 60) {
			t.Fatal(statuses(verdicts), err)
		}
		calls := srv.seen()
		for i, c := range calls {
			if c.size > maxBody {
				t.Errorf("call %d of %d bytes", i, c.size)
			}
			if i == len(calls)-1 {
				continue
			}
			next := calls[i+1].events[0]
			if more := c.size + eventSize(next.ID, next.Data); more <= maxBody {
				t.Errorf("call %d could have carried another event: %d bytes", i, more)
			}
		}
		if len(calls) < 3 {
			t.Errorf("only %d calls", len(calls))
		}
	})
}

// What takes no event at all is found out after a few of them, not after each.
func TestPutThroughWhatTakesNothing(t *testing.T) {
	calls := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	}))
	defer srv.Close()
	verdicts, err := newDestination(t, at(srv.URL)).Put(t.Context(), entries(100))
	if err == nil || audit.Hint(err) == "" || statuses(verdicts) != strings.Repeat("U", 100) {
		t.Error(statuses(verdicts), err)
	}
	if calls > 1+tooManyAlone {
		t.Errorf("%d calls for a batch", calls)
	}
}

// eventSize is what an event takes in a body, with its comma.
func eventSize(id, data string) int {
	quotedID, _ := jsontext.AppendQuote(nil, id)
	quotedData, _ := jsontext.AppendQuote(nil, data)
	return len(`{"eventData":,"eventDataChecksum":"","id":},`) + 44 + len(quotedID) + len(quotedData)
}

func TestPutFillsABodyToTheByte(t *testing.T) {
	srv := serve(t, acceptAll)
	s := newDestination(t, at(srv.URL))
	// Fifteen events of some 66 kB, the last of which is grown until the body is full.
	full := func(n int) []audit.Entry {
		es := entries(15)
		for i := range es {
			es[i].Payload = strings.Repeat("p", 66_000)
		}
		size := len(bodyBegin) + len(bodyEnd) - len(",")
		for i := range es {
			id, data := s.Event(&es[i])
			size += eventSize(id, string(data))
		}
		es[14].Payload = strings.Repeat("p", 66_000+n-size)
		return es
	}
	for _, c := range []struct{ size, calls int }{{maxBody, 1}, {maxBody + 1, 2}} {
		before := len(srv.seen())
		verdicts, err := s.Put(t.Context(), full(c.size))
		if err != nil || statuses(verdicts) != strings.Repeat("A", 15) {
			t.Fatal(statuses(verdicts), err)
		}
		calls := srv.seen()[before:]
		if len(calls) != c.calls || c.calls == 1 && calls[0].size != maxBody {
			t.Errorf("body of %d bytes: %d calls, the first of %d", c.size, len(calls), calls[0].size)
		}
	}
}

func TestPutVerdictsOfEvents(t *testing.T) {
	for _, c := range []struct {
		code, want string
		setting    bool
	}{
		{code: "Throttling", want: "U"},
		{code: "InternalFailure", want: "U"},
		{code: "ThrottlingException", want: "U"},
		{code: "ServiceUnavailable", want: "U"},
		{code: "", want: "U"},
		{code: "InvalidData", want: "R"},
		{code: "FieldTooLong", want: "R"},
		{code: "FieldNotFound", want: "R"},
		{code: "InvalidChecksum", want: "R"},
		{code: "SomethingNew", want: "U"},
		{code: "AccountNotSubscribed", want: "U", setting: true},
		{code: "InvalidRecipient", want: "U", setting: true},
		{code: "InvalidEventSource", want: "U", setting: true},
	} {
		t.Run(c.code, func(t *testing.T) {
			srv := serve(t, func(w http.ResponseWriter, got call, _ int) {
				_, _ = io.WriteString(w, got.answer(map[string]string{"e1": c.code}))
			})
			s := newDestination(t, at(srv.URL))
			verdicts, err := s.Put(t.Context(), entries(3))
			if got, want := statuses(verdicts), "A"+c.want+"A"; got != want {
				t.Errorf("verdicts %s, want %s", got, want)
			}
			if v := verdicts[1]; c.code != "" && (v.Code != c.code || v.Reason != "because") {
				t.Errorf("verdict %+v", v)
			}
			var setting *audit.SettingsError
			if errors.As(err, &setting) != c.setting || !c.setting && err != nil {
				t.Errorf("error %v", err)
			}
			if c.setting && (audit.Hint(setting) == "" || !strings.Contains(err.Error(), c.code)) {
				t.Errorf("error %v, hint %q", err, audit.Hint(setting))
			}
		})
	}
}

func TestPutAnswers(t *testing.T) {
	const okay = `{"id":"e0","eventID":"1"}`
	for _, c := range []struct {
		name, answer, want, code string
		bad                      bool
	}{
		{name: "neither list", answer: `{"successful":[` + okay + `],"failed":[]}`, want: "AU", code: "NoAnswer"},
		{name: "one list only", answer: `{"successful":[` + okay + `]}`, want: "AU", code: "NoAnswer"},
		{name: "null lists", answer: `{"successful":[` + okay + `],"failed":null}`, want: "AU", code: "NoAnswer"},
		{name: "spaces and unknown fields", answer: ` {"x":[{}], "successful" : [ {"eventID":"1" , "new":{"id":"e1"},"id":"e\u0030"} ] } `, want: "AU", code: "NoAnswer"},
		{name: "ids not asked for", answer: `{"successful":[` + okay + `,{"id":"zz"},{}],"failed":[{"id":"y","errorCode":"InvalidData"}]}`, want: "AU", code: "NoAnswer"},
		{name: "in both lists", answer: `{"failed":[{"id":"e1","errorCode":"InvalidData"}],"successful":[` + okay + `,{"id":"e1"}]}`, want: "AU", code: "Contradiction"},
		{name: "empty", answer: ``, want: "UU", code: "BadAnswer", bad: true},
		{name: "empty object", answer: `{}`, want: "UU", code: "BadAnswer", bad: true},
		{name: "HTML", answer: `<html>`, want: "UU", code: "BadAnswer", bad: true},
		{name: "truncated", answer: `{"successful":[` + okay + `],"failed":[`, want: "UU", code: "BadAnswer", bad: true},
		{name: "an array", answer: `[` + okay + `]`, want: "UU", code: "BadAnswer", bad: true},
		{name: "a list that is none", answer: `{"successful":"e0"}`, want: "UU", code: "BadAnswer", bad: true},
		{name: "entries that are none", answer: `{"successful":[` + okay + `,"e1"]}`, want: "UU", code: "BadAnswer", bad: true},
		{name: "endless", answer: `{"successful":[` + okay + `]` + strings.Repeat(" ", 17<<20) + `}`, want: "UU", code: "BadAnswer", bad: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(t, func(w http.ResponseWriter, _ call, _ int) { _, _ = io.WriteString(w, c.answer) })
			s := newDestination(t, at(srv.URL))
			verdicts, err := s.Put(t.Context(), entries(2))
			if got := statuses(verdicts); got != c.want || verdicts[1].Code != c.code {
				t.Errorf("verdicts %s, %+v; want %s, %s", got, verdicts[1], c.want, c.code)
			}
			var setting *audit.SettingsError
			if (err != nil) != c.bad || errors.As(err, &setting) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// refuseCall answers as AWS does to a call that it refuses as a whole.
func refuseCall(w http.ResponseWriter, code string) {
	w.WriteHeader(http.StatusBadRequest)
	_, _ = fmt.Fprintf(w, `{"__type":%q,"message":"not this one"}`, code)
}

func TestPutHalves(t *testing.T) {
	bad := map[string]bool{"e3": true, "e4": true, "e99": true}
	srv := serve(t, func(w http.ResponseWriter, c call, _ int) {
		for id := range bad {
			if c.has(id) {
				refuseCall(w, "com.amazonaws#ValidationException")
				return
			}
		}
		_, _ = io.WriteString(w, c.answer(nil))
	})
	s := newDestination(t, at(srv.URL))
	verdicts := putTwice(t, s, entries(100))
	for i, v := range verdicts {
		want := audit.Verdict{Status: audit.Accepted}
		if bad[fmt.Sprintf("e%d", i)] {
			want = audit.Verdict{Status: audit.Rejected, Code: "ValidationException", Reason: "not this one"}
		}
		if v != want {
			t.Errorf("entry %d: %+v, want %+v", i, v, want)
		}
	}
	accepted := map[string]int{}
	for _, c := range srv.seen() {
		if !c.has("e3") && !c.has("e4") && !c.has("e99") {
			for _, id := range c.ids() {
				accepted[id]++
			}
		}
	}
	for id, n := range accepted {
		if n != 1 {
			t.Errorf("%s was accepted %d times", id, n)
		}
	}
}

func TestPutGoesOnAfterA500ButNotAfterThrottling(t *testing.T) {
	first, last := strings.Repeat("A", 100), strings.Repeat("A", 50)
	for _, c := range []struct {
		code   string
		status int
		want   string
	}{
		{"InternalFailure", 500, first + strings.Repeat("U", 100) + last},
		{"ThrottlingException", 400, first + strings.Repeat("U", 150)},
		{"AccessDeniedException", 400, first + strings.Repeat("U", 150)},
	} {
		srv := serve(t, func(w http.ResponseWriter, got call, n int) {
			if n != 2 {
				_, _ = io.WriteString(w, got.answer(nil))
				return
			}
			w.Header().Set("X-Amzn-ErrorType", c.code)
			w.WriteHeader(c.status)
		})
		s := newDestination(t, at(srv.URL))
		verdicts, err := s.Put(t.Context(), entries(250))
		if got := statuses(verdicts); got != c.want || err == nil {
			t.Errorf("%s: %s, %v", c.code, got, err)
		}
	}
}

func TestPutByManyAtOnce(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, c call, _ int) {
		_, _ = io.WriteString(w, c.answer(map[string]string{"e7": "InvalidData"}))
	})
	s := newDestination(t, at(srv.URL))
	es := entries(120)
	es[110].Payload = strings.Repeat(`"`, 250_000)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for range 5 {
				verdicts, err := s.Put(t.Context(), es)
				if want := strings.Repeat("A", 7) + "R" + strings.Repeat("A", 112); err != nil || statuses(verdicts) != want {
					t.Errorf("%s, %v", statuses(verdicts), err)
				}
			}
		})
	}
	workers.Wait()
}
