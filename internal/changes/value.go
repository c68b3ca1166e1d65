package changes

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Values of an entity. A scalar is its JSON text.
type (
	object map[string]any
	list   []any
	scalar string
)

const null scalar = "null"

func isNull(n any) bool { return n == any(null) }

// empty reports whether a value is an empty list or object, which Lua does not tell apart.
func empty(n any) bool {
	switch n := n.(type) {
	case object:
		return len(n) == 0
	case list:
		return len(n) == 0
	}
	return false
}

func same(b, a any) bool {
	switch b := b.(type) {
	case scalar:
		s, ok := a.(scalar)
		return ok && (b == s || equalNumbers(string(b), string(s)))
	case list:
		l, ok := a.(list)
		return ok && slices.EqualFunc(b, l, same) || empty(b) && empty(a)
	case object:
		o, ok := a.(object)
		if !ok {
			return empty(b) && empty(a)
		}
		for name, was := range b {
			if is, has := o[name]; has && !same(was, is) || !has && !isNull(was) {
				return false
			}
		}
		for name, is := range o {
			if _, had := b[name]; !had && !isNull(is) {
				return false
			}
		}
		return true
	}
	return false
}

// equalNumbers reports whether two JSON texts are one number: Lua writes 1 as 1 or as 1.0.
func equalNumbers(a, b string) bool {
	if a == "" || b == "" || a[0] == '"' || b[0] == '"' {
		return false
	}
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && x == y
}

// parse reads a strict JSON text that is not nested too deep.
func parse(text string) (n any, ok bool) {
	dec := jsontext.NewDecoder(strings.NewReader(text))
	n, err := read(dec)
	if err != nil {
		return nil, false
	}
	if _, err := dec.ReadToken(); err == nil || strings.TrimSpace(text[dec.InputOffset():]) != "" {
		return nil, false
	}
	return n, true
}

// objectIn reads a text that is a JSON object.
func objectIn(text string) (o object, ok bool) {
	n, _ := parse(text)
	o, ok = n.(object)
	return o, ok
}

func read(dec *jsontext.Decoder) (any, error) {
	if dec.StackDepth() > maxNesting {
		return nil, fmt.Errorf("nested more than %d levels deep", maxNesting)
	}
	switch dec.PeekKind() {
	case jsontext.KindBeginObject:
		o := object{}
		if _, err := dec.ReadToken(); err != nil {
			return nil, err
		}
		for dec.PeekKind() != jsontext.KindEndObject {
			name, err := dec.ReadToken()
			if err != nil {
				return nil, err
			}
			key := name.String()
			if o[key], err = read(dec); err != nil {
				return nil, err
			}
		}
		_, err := dec.ReadToken()
		return o, err
	case jsontext.KindBeginArray:
		l := list{}
		if _, err := dec.ReadToken(); err != nil {
			return nil, err
		}
		for dec.PeekKind() != jsontext.KindEndArray {
			n, err := read(dec)
			if err != nil {
				return nil, err
			}
			l = append(l, n)
		}
		_, err := dec.ReadToken()
		return l, err
	default:
		v, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		if v.Kind() == jsontext.KindString { // one form for one text
			return quote(unquote(scalar(v))), nil
		}
		return scalar(bytes.Clone(v)), nil
	}
}

func quote(s string) scalar {
	v, _ := jsontext.AppendQuote(nil, s)
	return scalar(v)
}

func unquote(s scalar) string {
	text, _ := jsontext.AppendUnquote(nil, string(s))
	return string(text)
}

// isText reports whether a value is a string.
func isText(n any) (scalar, bool) {
	s, ok := n.(scalar)
	return s, ok && s != "" && s[0] == '"'
}

// encode writes a value with the members of objects in the order of their names.
func encode(n any) jsontext.Value { return appendValue(nil, n) }

func appendValue(b []byte, n any) []byte {
	switch n := n.(type) {
	case object:
		b = append(b, '{')
		for i, name := range slices.Sorted(maps.Keys(n)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(b, quote(name)...), ':')
			b = appendValue(b, n[name])
		}
		return append(b, '}')
	case list:
		b = append(b, '[')
		for i, e := range n {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, e)
		}
		return append(b, ']')
	case scalar:
		return append(b, n...)
	}
	return append(b, null...)
}
