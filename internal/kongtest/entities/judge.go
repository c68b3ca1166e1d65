package entities

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Field is a field of an entity with its value, as somebody says what changed.
type Field struct {
	Path  string         `json:"path"` // RFC 6901
	Value jsontext.Value `json:"value"`
}

// Deny returns what is wrong with fields that are said to be what changed: from with the
// values before, to with those after. Nothing may be there that is not true, and nothing
// may be missing. A value that contains hidden stands for a secret, whatever it is.
func (c *Change) Deny(from, to []Field, hidden string) error {
	sides := []struct {
		name   string
		state  jsontext.Value
		fields []Field
	}{{"from", c.Before, from}, {"to", c.After, to}}
	rest := [2]map[string]any{} // the states without the fields that are named
	for i, side := range sides {
		state, err := parse(side.state)
		if err != nil {
			return err
		}
		rest[i], _ = state.(map[string]any)
		for _, f := range side.fields {
			got, err := parse(f.Value)
			if err != nil {
				return fmt.Errorf("%s %s: %w", side.name, f.Path, err)
			}
			if want := at(state, f.Path); !like(want, got, hidden) {
				return fmt.Errorf("%s %s is %.200s, and in truth %.200v", side.name, f.Path, f.Value, want)
			}
		}
	}
	before, after := rest[0], rest[1]
	for _, f := range slices.Concat(from, to) {
		remove(before, f.Path)
		remove(after, f.Path)
	}
	for _, name := range slices.Concat(slices.Collect(maps.Keys(before)), slices.Collect(maps.Keys(after))) {
		if was, is := before[name], after[name]; !reflect.DeepEqual(was, is) {
			return fmt.Errorf("/%s is missing: from %.200v to %.200v", name, was, is)
		}
	}
	return nil
}

// parse decodes a state or a value. Null and missing are the same.
func parse(text jsontext.Value) (v any, err error) {
	if text != nil {
		err = json.Unmarshal(text, &v)
		dropNulls(v)
	}
	return v, err
}

func dropNulls(v any) {
	switch v := v.(type) {
	case map[string]any:
		maps.DeleteFunc(v, func(_ string, v any) bool { dropNulls(v); return v == nil })
	case []any:
		for i := range v {
			dropNulls(v[i])
		}
	}
}

// at returns what a path leads to, and nil if it leads nowhere.
func at(v any, path string) any {
	for step := range jsontext.Pointer(path).Tokens() {
		switch in := v.(type) {
		case map[string]any:
			v = in[step]
		case []any:
			n, err := strconv.Atoi(step)
			if err != nil || n < 0 || n >= len(in) {
				return nil
			}
			v = in[n]
		default:
			return nil
		}
	}
	return v
}

// remove deletes what a path leads to, or the list that it leads into, and each record that is empty
// without it.
func remove(state map[string]any, path string) {
	name, rest, deeper := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
	if record, ok := state[name].(map[string]any); ok && deeper {
		if remove(record, rest); len(record) > 0 {
			return
		}
	}
	delete(state, name)
}

// like reports whether a value is the true one, but for what is hidden in it.
func like(truth, got any, hidden string) bool {
	switch got := got.(type) {
	case string:
		return strings.Contains(got, hidden) || truth == any(got)
	case map[string]any:
		of, ok := truth.(map[string]any)
		if !ok || len(of) != len(got) {
			return false
		}
		for name := range of {
			if !like(of[name], got[name], hidden) {
				return false
			}
		}
		return true
	case []any:
		of, ok := truth.([]any)
		return ok && slices.EqualFunc(of, got, func(t, g any) bool { return like(t, g, hidden) })
	}
	return reflect.DeepEqual(truth, got)
}
