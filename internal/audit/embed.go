package audit

import (
	"bytes"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth is how deep an object may nest and still be embedded. JSON parsers have limits,
// and 1,000 is a common one; what Kong takes has a depth of less than ten.
const maxDepth = 500

// IsObject reports whether text, without blanks around it, is a JSON object that can be
// embedded in an event. Its names may come twice, and its texts need not be UTF-8.
func IsObject(text []byte) bool {
	return len(text) > 0 && text[0] == '{' && !deep(text) &&
		jsontext.Value(text).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// deep reports whether text, if it is JSON, nests deeper than maxDepth.
func deep(text []byte) bool {
	if bytes.Count(text, []byte{'{'})+bytes.Count(text, []byte{'['}) <= maxDepth {
		return false
	}
	depth, quoted := 0, false
	for i := 0; i < len(text) && depth <= maxDepth; i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
	}
	return depth > maxDepth
}

// Fit returns the longest beginning of s, whole runes, that takes at most limit bytes as a
// JSON string, with its quotes and escapes.
func Fit(s string, limit int) string {
	if 6*len(s)+2 <= limit { // a control character takes six
		return s
	}
	size := 2
	for i, r := range s {
		switch {
		case r == '"', r == '\\', r == '\b', r == '\f', r == '\n', r == '\r', r == '\t':
			size += 2
		case r < ' ':
			size += 6
		default:
			size += utf8.RuneLen(r) // a byte that is not UTF-8 is U+FFFD here and in JSON
		}
		if size > limit {
			return s[:i]
		}
	}
	return s
}
