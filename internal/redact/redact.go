// Package redact removes values from payloads before anything leaves the relay.
package redact

import (
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// maxNesting is how deep a payload may be nested to be looked into. What Kong is
// configured with is some ten levels deep; a payload made to be deeper would cost
// time by its depth, and in the end the stack.
const maxNesting = 100

// redacted replaces each value that is removed.
const redacted = "[redacted]"

// New returns a function that replaces what dotted paths name in the JSON payload of an entry. A
// path goes into the elements of a list by itself, and * stands for any key. A
// payload that is nested too deep to be looked into is replaced as a whole. One
// that is not JSON has no paths, and stays.
func New(paths []string) func(*audit.Entry) {
	split := make([][]string, len(paths))
	for i, p := range paths {
		split[i] = strings.Split(p, ".")
	}
	return func(e *audit.Entry) {
		if tooDeep(e.Payload) {
			e.Payload = `"` + redacted + `"`
			return
		}
		if e.Payload == "" || !gjson.Valid(e.Payload) {
			return
		}
		var b strings.Builder
		if redactValue(&b, gjson.Parse(e.Payload), split) {
			e.Payload = b.String()
		}
	}
}

// tooDeep tells whether a text opens more brackets than maxNesting at once.
func tooDeep(text string) bool {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			if depth++; depth > maxNesting {
				return true
			}
		case '}', ']':
			depth--
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		}
	}
	return false
}

// redactValue writes a value without what the paths name, and tells whether
// anything was replaced.
func redactValue(b *strings.Builder, v gjson.Result, paths [][]string) bool {
	if len(paths) == 0 || !v.IsObject() && !v.IsArray() {
		b.WriteString(v.Raw)
		return false
	}
	open, end := byte('['), byte(']')
	if v.IsObject() {
		open, end = '{', '}'
	}
	b.WriteByte(open)
	changed, first := false, true
	v.ForEach(func(key, value gjson.Result) bool {
		if !first {
			b.WriteByte(',')
		}
		first = false
		below := paths
		if v.IsObject() {
			b.WriteString(key.Raw)
			b.WriteByte(':')
			below = nil
			for _, p := range paths {
				if p[0] == key.Str || p[0] == "*" {
					below = append(below, p[1:])
				}
			}
		}
		if slices.ContainsFunc(below, func(p []string) bool { return len(p) == 0 }) {
			b.WriteString(`"` + redacted + `"`)
			changed = true
			return true
		}
		changed = redactValue(b, value, below) || changed
		return true
	})
	b.WriteByte(end)
	return changed
}
