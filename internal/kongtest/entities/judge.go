package entities

import (
	"fmt"
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
	before, err := parse(c.Before)
	if err != nil {
		return err
	}
	after, err := parse(c.After)
	if err != nil {
		return err
	}
	for _, side := range []struct {
		name   string
		state  map[string]any
		fields []Field
	}{{"from", before, from}, {"to", after, to}} {
		for _, f := range side.fields {
			var got any
			if err := json.Unmarshal(f.Value, &got); err != nil {
				return fmt.Errorf("%s %s: %w", side.name, f.Path, err)
			}
			want := at(side.state, f.Path)
			if !like(want, got, hidden) {
				return fmt.Errorf("%s %s is %.200s, and in truth %.200v", side.name, f.Path, f.Value, want)
			}
		}
	}
	for _, path := range differences("", before, after) {
		if !covered(from, path) && !covered(to, path) {
			was := at(before, path)
			is := at(after, path)
			return fmt.Errorf("%s is missing: from %.200v to %.200v", path, was, is)
		}
	}
	return nil
}

func parse(state jsontext.Value) (fields map[string]any, err error) {
	if state == nil {
		return nil, nil
	}
	err = json.Unmarshal(state, &fields)
	return fields, err
}

// at returns what a path leads to, and nil if it leads nowhere.
func at(state map[string]any, path string) any {
	var v any = state
	for step := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
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

// differences returns the paths in which two values differ: those of objects as deep as
// both have one. Null and missing are the same.
func differences(path string, before, after any) (paths []string) {
	b, isObject := before.(map[string]any)
	a, also := after.(map[string]any)
	if !isObject || !also || path == "" && (b == nil || a == nil) {
		if path == "" { // made or deleted: each of its fields
			for name, v := range b {
				if v != nil {
					paths = append(paths, "/"+name)
				}
			}
			for name, v := range a {
				if v != nil {
					paths = append(paths, "/"+name)
				}
			}
			return paths
		}
		if !reflect.DeepEqual(before, after) {
			return []string{path}
		}
		return nil
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	for name := range b {
		paths = append(paths, differences(path+"/"+escape.Replace(name), b[name], a[name])...)
	}
	for name := range a {
		if _, both := b[name]; !both {
			paths = append(paths, differences(path+"/"+escape.Replace(name), nil, a[name])...)
		}
	}
	return paths
}

// covered reports whether one of the fields is at a path, above it, or within it.
func covered(fields []Field, path string) bool {
	return slices.ContainsFunc(fields, func(f Field) bool {
		return f.Path == path || strings.HasPrefix(path, f.Path+"/") || strings.HasPrefix(f.Path, path+"/")
	})
}
