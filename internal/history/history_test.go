package history_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/history"
	"github.com/kong-cloudtrail/relay/internal/kongadmin"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// send makes a request at the emulated Admin API.
func send(tb testing.TB, kong *kongtest.Server, method, path string, body map[string]any) {
	tb.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	r := httptest.NewRequestWithContext(tb.Context(), method, path, bytes.NewReader(b))
	r.Header.Set("Content-Type", "application/json")
	kong.ServeHTTP(httptest.NewRecorder(), r)
}

// reader returns a function that reads histories of an emulated Kong.
func reader(tb testing.TB, kong *kongtest.Server) func(entity, name string, since int64) *history.Report {
	tb.Helper()
	server := httptest.NewServer(kong)
	tb.Cleanup(server.Close)
	client, err := kongadmin.New(kongadmin.Options{URL: server.URL})
	if err != nil {
		tb.Fatal(err)
	}
	return func(entity, name string, since int64) *history.Report {
		tb.Helper()
		r, err := history.Read(tb.Context(), history.Options{Requests: client, Objects: client.Objects(), Entity: entity, Name: name, Since: since})
		if err != nil {
			tb.Fatal(err)
		}
		return r
	}
}

// clock is a Kong's clock that a test sets.
type clock struct{ now time.Time }

func (c *clock) at(seconds int) { c.now = time.Unix(1_790_000_000+int64(seconds), 0) }

func lines(t *testing.T, r *history.Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.Print(&b, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestWhoChangedIt is the question of the documents: who broke the route, and what was it before?
func TestWhoChangedIt(t *testing.T) {
	var c clock
	kong := kongtest.New(kongtest.Options{Now: func() time.Time { return c.now }, SkipReads: true})
	c.at(0)
	send(t, kong, "POST", "/services", map[string]any{"name": "orders", "host": "a"})
	c.at(10)
	send(t, kong, "POST", "/services/orders/routes", map[string]any{"name": "orders", "paths": []any{"/orders"}})
	c.at(100)
	send(t, kong, "PATCH", "/routes/orders", map[string]any{"paths": []any{"/broken"}, "tags": []any{"x"}})
	c.at(101)
	send(t, kong, "PATCH", "/routes/orders", map[string]any{"name": "orders-2"}) // less than 2 s later
	c.at(200)
	send(t, kong, "PATCH", "/routes/orders-2", map[string]any{"strip_path": false})
	c.at(300)
	send(t, kong, "DELETE", "/routes/orders-2", nil)
	c.at(400)
	read := reader(t, kong)

	for _, kind := range []string{"routes", "route"} {
		r := read(kind, "orders", 0)
		var got []string
		for _, e := range r.Events {
			got = append(got, e.Operation+" "+string(e.History))
		}
		// The time of the rename and of what follows a change that it is too near to are not certain.
		want := []string{"delete exact", "update approximate", "update approximate", "update approximate", "create exact"}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	out := lines(t, read("routes", "orders", 0))
	for _, want := range []string{
		"2026-09-21T14:15:00Z  anonymous  from 192.0.2.1  PATCH /routes/orders\n", "  - paths/0: \"/orders\"\n  + paths/0: \"/broken\"\n  + tags: [\"x\"]\n",
		"  approximate: changes less than 2 s apart cannot be put in order\n", "  - strip_path: true\n  + strip_path: false\n",
		"  update routes/orders-2\n  approximate", "What was read of Kong's log begins at 2026-09-21T14:13:20Z.\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") || strings.Contains(out, "+ updated_at: 1790000200") {
		t.Errorf("%s", out)
	}

	// A part of the time: the state before is found all the same.
	r := read("services", "orders", 1_790_000_000+50)
	if len(r.Events) != 0 || len(r.Keys) != 0 {
		t.Errorf("%+v", r)
	}
	r = read("routes", "orders-2", 1_790_000_000+150)
	if len(r.Events) != 2 || r.Events[1].History == changes.Unavailable {
		t.Errorf("%+v", r.Events)
	}
	if r = read("routes", "order", 0); len(r.Events) != 0 || !slices.Contains(r.Similar, "orders") {
		t.Errorf("%+v", r)
	}
}

// What Kong lost or has purged is said.
func TestGaps(t *testing.T) {
	var c clock
	kong := kongtest.New(kongtest.Options{Now: func() time.Time { return c.now }, SkipReads: true})
	c.at(0)
	send(t, kong, "POST", "/consumers", map[string]any{"username": "bob"})
	c.at(10)
	send(t, kong, "PATCH", "/consumers/bob", map[string]any{"custom_id": "1"})
	c.at(20)
	kong.Update(func(o *kongtest.Options) { o.LoseObjects = 1 })
	send(t, kong, "PATCH", "/consumers/bob", map[string]any{"custom_id": "2"})
	c.at(30)
	kong.Update(func(o *kongtest.Options) { o.LoseObjects, o.LoseRows = 0, 1 })
	send(t, kong, "PATCH", "/consumers/bob", map[string]any{"custom_id": "3"})
	c.at(40)
	kong.Update(func(o *kongtest.Options) { o.LoseRows = 0 })
	send(t, kong, "PATCH", "/consumers/bob", map[string]any{"custom_id": "4"})
	c.at(50)
	kong.Purge(time.Unix(1_790_000_005, 0))
	got := []string{}
	for _, e := range reader(t, kong)("consumers", "bob", 0).Events {
		got = append(got, fmt.Sprint(e.History, "; ", e.Method, "; ", e.Note))
	}
	want := []string{
		"exact; PATCH; ",
		"approximate; ; a request in between left no row; Kong holds no row of the request, which would say who made it and from where",
		"unavailable; PATCH; Kong has no row that says what this request changed",
		"unavailable; PATCH; Kong holds no earlier state",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// A request without a row for the service of a route that is called like a list may have
// changed the service.
func TestGapOfANestedEntity(t *testing.T) {
	var c clock
	kong := kongtest.New(kongtest.Options{Now: func() time.Time { return c.now }, SkipReads: true})
	c.at(0)
	send(t, kong, "POST", "/services", map[string]any{"name": "orders", "host": "a"})
	c.at(20)
	kong.Add(auditlog.Row{RequestID: "nested", RequestTimestamp: c.now.Unix(), Method: "PATCH", Path: "/routes/users/service", Status: 200})
	c.at(40)
	send(t, kong, "PATCH", "/services/orders", map[string]any{"host": "b"})
	c.at(60)
	for _, e := range reader(t, kong)("services", "orders", 0).Events {
		if e.Operation == "update" && e.History == changes.Approximate && e.Path == "/services/orders" {
			return
		}
	}
	t.Errorf("no approximate update in %s", lines(t, reader(t, kong)("services", "orders", 0)))
}

// A history is harmless for a terminal.
func TestPrintIsClean(t *testing.T) {
	r := &history.Report{Events: []history.Event{{
		UserName: "a\x1b[2Jb", Method: http.MethodGet, Path: "/\x9b\u202e", Change: changes.Change{
			Operation: "update", History: changes.Exact, To: []changes.Field{{Path: "/x", Value: []byte(`"[secret 0123456789abcdef]` + strings.Repeat("y", 500) + "\x7f\"")}},
		},
	}}}
	var b strings.Builder
	if err := r.Print(&b, true); err != nil {
		t.Fatal(err)
	}
	if got := strings.NewReplacer("\x1b[1m", "", "\x1b[32m", "", "\x1b[2m", "", "\x1b[0m", "").Replace(b.String()); strings.ContainsAny(got, "\x1b\u009b\x7f\u202e") ||
		!strings.Contains(b.String(), "\x1b[32m  + x: \"[secret 01234567]yyy") || !strings.Contains(got, "… (528 bytes)") {
		t.Errorf("%q", b.String())
	}
}
