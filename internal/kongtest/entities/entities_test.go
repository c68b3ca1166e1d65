package entities_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

func edit(t *testing.T, w *entities.World, want int, method, path, body string) entities.Answer {
	t.Helper()
	e := entities.Edit{RequestID: method + path, Method: method, Path: path, Time: time.Unix(1_790_000_000, 0)}
	if body != "" {
		if err := json.Unmarshal([]byte(body), &e.Body); err != nil {
			t.Fatal(err)
		}
	}
	a := w.Apply(e)
	if a.Status != want {
		t.Fatalf("%s %s: %d, want %d: %v", method, path, a.Status, want, a.Body)
	}
	return a
}

func lines(changes []entities.Change) (lines []string) {
	for _, c := range changes {
		lines = append(lines, fmt.Sprint(c.Operation, " ", c.DAO, " ", c.Name))
	}
	return lines
}

// What an edit changes is what Kong's foreign keys and unique names make of it.
func TestEdits(t *testing.T) {
	var w entities.World
	edit(t, &w, 201, "POST", "/services", `{"name":"orders","host":"a"}`)
	edit(t, &w, 409, "POST", "/services", `{"name":"orders"}`)
	edit(t, &w, 201, "POST", "/workspaces", `{"name":"team"}`)
	edit(t, &w, 201, "POST", "/team/services", `{"name":"orders"}`) // a name is unique in its workspace
	edit(t, &w, 201, "POST", "/services/orders/routes", `{"name":"r","paths":["/a"]}`)
	edit(t, &w, 400, "POST", "/routes", `{"service":{"id":"nowhere"}}`)
	edit(t, &w, 201, "POST", "/routes/r/plugins", `{"name":"rate-limiting","config":{"minute":5,"hour":9}}`)
	edit(t, &w, 404, "PATCH", "/services/nowhere", `{"host":"b"}`)
	edit(t, &w, 400, "DELETE", "/services/orders", "") // a route refers to it

	a := edit(t, &w, 200, "PATCH", "/services/orders", `{"host":"b"}`)
	c := a.Changes[0]
	if len(a.Changes) != 1 || c.Operation != "update" || c.Workspace != entities.DefaultWorkspace || c.Key == "" || c.Row == "" ||
		!strings.Contains(string(c.Before), `"host":"a"`) || !strings.Contains(string(c.After), `"host":"b"`) || !strings.Contains(string(c.After), `"retries":5`) {
		t.Errorf("%+v", c)
	}
	a = edit(t, &w, 204, "DELETE", "/routes/r", "")
	if got := lines(a.Changes); !slices.Equal(got, []string{"delete routes r", "delete plugins "}) {
		t.Errorf("%v", got)
	}
	if a.Changes[0].After != nil || !strings.Contains(string(a.Changes[1].Before), "rate-limiting") {
		t.Errorf("%+v", a.Changes)
	}
	if a := edit(t, &w, 204, "DELETE", "/routes/r", ""); len(a.Changes) != 0 {
		t.Errorf("%+v", a.Changes)
	}
	if a := edit(t, &w, 201, "POST", "/admins", `{"username":"eve"}`); !slices.Equal(lines(a.Changes),
		[]string{"create consumers eve_ADMIN_", "create rbac_users eve", "create admins eve"}) {
		t.Errorf("%v", lines(a.Changes))
	}
	if a := edit(t, &w, 200, "PUT", "/consumers/bob", `{"custom_id":"1"}`); !slices.Equal(lines(a.Changes), []string{"create consumers bob"}) {
		t.Errorf("%v", lines(a.Changes))
	}
	edit(t, &w, 201, "POST", "/consumers/bob/key-auth", `{"key":"k"}`)
	if a := edit(t, &w, 204, "DELETE", "/consumers/bob", ""); !slices.Equal(lines(a.Changes), []string{"delete consumers bob", "delete keyauth_credentials "}) {
		t.Errorf("%v", lines(a.Changes)) // a key is nothing to call a credential by
	}
	edit(t, &w, 200, "GET", "/team/services/orders", "")
	edit(t, &w, 404, "GET", "/team/routes/r", "")
	edit(t, &w, 201, "POST", "/services", "")
}

// A generator makes all kinds of edits, and the true states of an entity follow each other.
func TestGenerator(t *testing.T) {
	var w entities.World
	g := entities.NewGenerator(&w, 1)
	statuses, operations, places, at, large := map[int]int{}, map[string]int{}, map[string]int{}, time.Unix(1_790_000_000, 0), 0
	for range 5000 {
		s := g.Next()
		at = at.Add(s.Pause)
		for _, e := range s.Edits {
			e.Time = at
			a := w.Apply(e)
			statuses[a.Status]++
			for _, c := range a.Changes {
				operations[c.Operation]++
				if len(c.After) > 100_000 {
					large++
				}
			}
		}
	}
	for _, want := range []int{200, 201, 204, 404} {
		if statuses[want] < 50 {
			t.Errorf("%v", statuses)
		}
	}
	if operations["create"] < 1000 || operations["update"] < 1000 || operations["delete"] < 300 || large < 10 {
		t.Errorf("%v, %d large", operations, large)
	}
	state := map[string]string{}
	for i, c := range w.Changes() {
		if c.Seq != i+1 || state[c.Key] != string(c.Before) {
			t.Fatalf("%d: before %s, and last it was %s", i, c.Before, state[c.Key])
		}
		state[c.Key] = string(c.After)
	}
	values := map[string]bool{}
	for _, s := range g.Secrets() {
		places[s.Place]++
		values[s.Value] = true
	}
	if len(places) < 35 || len(values) != len(g.Secrets()) {
		t.Errorf("%d secrets in %d places", len(values), len(places))
	}
}

// The log has an entity's fields in any order.
func TestText(t *testing.T) {
	texts := map[string]bool{}
	for range 50 {
		text := entities.Text([]byte(`{"a":[1,{"b":"/x"}],"c":null,"d":12345678901}`))
		texts[text] = true
		var v map[string]any
		if err := json.Unmarshal([]byte(text), &v); err != nil || v["d"] != 12345678901.0 || !strings.Contains(text, `"b":"\/x"`) {
			t.Fatalf("%s: %v", text, err)
		}
	}
	if len(texts) != 6 {
		t.Errorf("%d orders", len(texts))
	}
	if entities.Text([]byte("no JSON")) != "no JSON" {
		t.Error("changed")
	}
}

func TestDeny(t *testing.T) {
	field := func(path, value string) entities.Field {
		return entities.Field{Path: path, Value: jsontext.Value(value)}
	}
	fields := func(f ...entities.Field) []entities.Field { return f }
	update := entities.Change{Before: []byte(`{"a":1,"l":["x"],"c":{"s":"old","n":null},"same":true}`), After: []byte(`{"a":2,"l":["x","y"],"c":{"s":"new"},"same":true}`)}
	from := fields(field("/a", "1"), field("/l", `["x"]`), field("/c/s", `"[secret 1]"`))
	to := fields(field("/a", "2"), field("/l", `["x","y"]`), field("/c/s", `"[secret 2]"`))
	for _, c := range []struct {
		change   entities.Change
		from, to []entities.Field
		want     string
	}{
		{update, from, to, ""},
		{update, from[1:], to[1:], "/a is missing"},
		{update, from, append(slices.Clone(to), field("/same", "false")), "to /same is false, and in truth true"},
		{update, fields(field("/a", "0"), from[1], from[2]), to, "from /a is 0, and in truth 1"},
		{entities.Change{After: []byte(`{"a":1,"b":null}`)}, nil, fields(field("/a", "1")), ""},
		{entities.Change{After: []byte(`{"a":1,"b":2}`)}, nil, fields(field("/a", "1")), "/b is missing"},
		{entities.Change{Before: []byte(`{"a":{"x":"s3cret"}}`)}, fields(field("/a", `{"x":"[secret 1]"}`)), nil, ""},
		{entities.Change{Before: []byte(`{"a":{"x":1}}`)}, fields(field("/a", `{"x":1,"y":2}`)), nil, "from /a"},
	} {
		err := c.change.Deny(c.from, c.to, "[secret ")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
