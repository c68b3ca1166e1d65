package changes

import (
	"slices"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	var list []Change
	change := func(name, operation, before, after string, h History) {
		c := Change{Entity: "services", Key: "k", Name: name, Operation: operation, History: h}
		c.From, c.To = Diff(State(before), State(after))
		list = append(list, c)
	}
	change("a", Create, ``, `{"x":1}`, Exact)
	change("b", Update, `{"path":"/a","updated_at":1}`, `{"path":"/b","updated_at":2}`, Exact)
	change("", Update, `{"a":1,"b":2}`, `{"c":3,"d~/":"`+strings.Repeat("y", 200)+`","e":5}`, Approximate)
	change("d", Update, ``, `{"x":1}`, Unavailable)
	change("e", Delete, `{"x":1}`, ``, Exact)
	change("f", Update, `{"updated_at":1}`, `{"updated_at":2}`, Exact)
	want := []string{
		`services/a created`, `services/b: path "/a" → "/b"`, `services/k: a 1 → none, b 2 → none, c none → 3, 2 more (approximate)`,
		`services/d updated, and what it was before is not known`, `services/e deleted`, `services/f updated, and nothing changed`,
	}
	got := Lines(Event(list, false, 10_000))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if Lines("") != nil || Lines("x") != nil {
		t.Error("lines of nothing")
	}
}
