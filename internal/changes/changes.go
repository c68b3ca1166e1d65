// Package changes says what became of Kong's entities from one state to the next, as
// lists of fields, and hides the secrets that they hold.
package changes

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Operations, as Kong names them.
const (
	Create = "create"
	Update = "update"
	Delete = "delete"
)

// History says how much is known of an entity's state before a change.
type History string

// Histories.
const (
	// Exact: both states were seen, and nothing can have come between them.
	Exact History = "exact"
	// Approximate: the state before is the last one that was seen, and another change may
	// have come in between.
	Approximate History = "approximate"
	// Unavailable: no state before is known.
	Unavailable History = "unavailable"
)

// Change is what a request did to one entity.
type Change struct {
	Entity    string  `json:"entity"` // its kind: routes
	Key       string  `json:"key"`
	Name      string  `json:"name,omitzero"`
	Operation string  `json:"operation"`
	From      []Field `json:"from,omitempty"`
	To        []Field `json:"to,omitempty"`
	History   History `json:"history"`
	// Truncated is how many fields were left out because there was no room for them.
	Truncated int `json:"truncated,omitzero"`
}

// Field is a field of an entity, or a part of one, with its value.
type Field struct {
	Path  string         `json:"path"` // RFC 6901
	Value jsontext.Value `json:"value"`
}

// State is an entity without its secrets, as a JSON text in which equal entities are
// equal. The empty State is that of an entity which does not exist.
type State string

// maxNesting is how deep an entity may be nested to be looked into.
const maxNesting = 100

// Diff returns the fields in which two states differ, by path: from has those that were
// there before, with the values they had, and to those that are there now. A field that
// is null and one that is missing are the same. Of an entity that did not exist before,
// or does not now, each field that is not null is listed whole.
func Diff(before, after State) (from, to []Field) {
	d := differ{}
	b, bOK := parse(string(before))
	a, aOK := parse(string(after))
	switch {
	case before == "" && after == "":
	case before == "":
		d.to = whole(after)
	case after == "":
		d.from = whole(before)
	case !bOK || !aOK:
		if before != after {
			d.from, d.to = []Field{{"", opaque(before)}}, []Field{{"", opaque(after)}}
		}
	default:
		d.compare("", b, a)
	}
	return d.from, d.to
}

// NewChange returns what an operation did to the entity of a kind and key. state is the
// entity afterwards, or when it was deleted; before is what is known of it before an update,
// and empty if that is nothing.
func NewChange(kind, key, operation string, before, state State, h History) Change {
	c := Change{Entity: kind, Key: key, Name: state.Name(), Operation: operation, History: h}
	switch operation {
	case Create:
		before = ""
	case Delete:
		before, state = state, ""
	}
	c.From, c.To = Diff(before, state)
	return c
}

// differ gathers fields that differ.
type differ struct{ from, to []Field }

// whole returns all fields of a state, for when there is no other state to compare it with.
func whole(s State) (list []Field) {
	o, ok := objectIn(string(s))
	if !ok {
		return []Field{{"", opaque(s)}}
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if o[name] != nil {
			list = append(list, Field{"/" + escape(name), encode(o[name])})
		}
	}
	return list
}

// opaque is the value of a state that is not strict JSON.
func opaque(text State) jsontext.Value {
	if v := jsontext.Value(text); v.IsValid() {
		return v
	}
	v, _ := jsontext.AppendQuote(nil, string(text))
	return v
}

func (d *differ) compare(path string, b, a any) {
	switch b := b.(type) {
	case map[string]any:
		if a, ok := a.(map[string]any); ok {
			d.members(path, b, a)
			return
		}
	case []any:
		if a, ok := a.([]any); ok && len(b) == len(a) {
			for i := range b {
				d.compare(path+"/"+strconv.Itoa(i), b[i], a[i])
			}
			return
		}
	default:
		if equal(b, a) {
			return
		}
	}
	if !empty(b) || !empty(a) {
		d.from, d.to = append(d.from, Field{path, encode(b)}), append(d.to, Field{path, encode(a)})
	}
}

func (d *differ) members(path string, b, a map[string]any) {
	names := slices.Collect(maps.Keys(b))
	for name := range a {
		if _, both := b[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		at := path + "/" + escape(name)
		was, had := b[name]
		is, has := a[name]
		switch {
		case had && has:
			d.compare(at, was, is)
		case had && was != nil:
			d.from = append(d.from, Field{at, encode(was)})
		case has && is != nil:
			d.to = append(d.to, Field{at, encode(is)})
		}
	}
}

// escape writes a name as a reference token of a path (RFC 6901).
func escape(name string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(name) }

// Text returns the text of a field at the top of a state, or the empty string if there is none.
func (s State) Text(name string) string {
	o, _ := objectIn(string(s))
	text, _ := o[name].(string)
	return text
}

// Name returns the name of the entity for a person, or the empty string if it has none.
func (s State) Name() string {
	o, _ := objectIn(string(s))
	for _, field := range []string{"name", "username", "custom_id", "prefix", "target", "group"} {
		if text, _ := o[field].(string); text != "" {
			return text
		}
	}
	return ""
}

// Names returns every text by which a path of the Admin API may mean the entity: those
// of its fields, and of lists of them.
func (s State) Names() []string {
	o, _ := objectIn(string(s))
	var names []string
	for _, v := range o {
		list, isList := v.([]any)
		if !isList {
			list = []any{v}
		}
		for _, e := range list {
			if text, ok := e.(string); ok {
				names = append(names, text)
			}
		}
	}
	return names
}

// Number returns a whole number at the top of a state, such as updated_at.
func (s State) Number(name string) (int64, bool) {
	o, _ := objectIn(string(s))
	n, ok := o[name].(number)
	f, err := strconv.ParseFloat(string(n), 64)
	return int64(f), ok && err == nil
}

// Event returns the text of responseElements: the changes, and whether the entry went
// before all of its rows were there. It has at most limit bytes: from long changes the
// last fields are left out, and then whole changes, and it says how many.
func Event(list []Change, late bool, limit int) string {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Entity, b.Entity), cmp.Compare(a.Key, b.Key))
	})
	left := 0
	for {
		text := event(list, left, late)
		if len(text) <= limit {
			return text
		}
		if !shrink(list, len(text)-limit) {
			if len(list) == 0 {
				return text
			}
			n := max(1, len(list)/8)
			list, left = list[:len(list)-n], left+n
		}
	}
}

func event(list []Change, left int, late bool) string {
	b, err := json.Marshal(struct {
		Changes   []Change `json:"changes"`
		Late      bool     `json:"late,omitzero"`
		Truncated int      `json:"truncated,omitzero"`
	}{list, late, left})
	if err != nil { // the values are JSON
		return `{"changes":[],"late":true}`
	}
	return string(b)
}

// shrink leaves the longest fields out, at least n bytes. It reports whether it could.
func shrink(list []Change, n int) bool {
	size := func(f *Field) int { return len(f.Path) + len(f.Value) }
	var longest []*Field
	for i := range list {
		c := &list[i]
		c.From, c.To = slices.Clone(c.From), slices.Clone(c.To)
		for _, fields := range [][]Field{c.From, c.To} {
			for k := range fields {
				longest = append(longest, &fields[k])
			}
		}
	}
	slices.SortStableFunc(longest, func(a, b *Field) int { return cmp.Compare(size(b), size(a)) })
	for i, f := range longest {
		if i > 0 && n <= 0 {
			break
		}
		n -= size(f)
		f.Value = nil
	}
	gone := func(f Field) bool { return f.Value == nil }
	for i := range list {
		c := &list[i]
		c.Truncated += len(c.From) + len(c.To)
		c.From, c.To = slices.DeleteFunc(c.From, gone), slices.DeleteFunc(c.To, gone)
		c.Truncated -= len(c.From) + len(c.To)
	}
	return len(longest) > 0
}

// Fields returns the names at the top of a JSON object.
func Fields(text string) (names []string, ok bool) {
	o, ok := objectIn(text)
	return slices.Collect(maps.Keys(o)), ok
}
