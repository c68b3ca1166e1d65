package kongadmin

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

var null = []byte("null")

func isNull(raw []byte) bool { return bytes.Equal(raw, null) }

// keepAtOnce is the size of the memory that texts of entries share. It is small, so that a
// text that is kept for long holds few others in memory.
const keepAtOnce = 32 << 10

// keep returns a copy of the text that [pageReader.unquoted] returns.
func (r *pageReader) keep(raw []byte) string {
	text := r.unquoted(raw)
	if r.kept.Cap()-r.kept.Len() < len(text) {
		r.kept.Reset()
		r.kept.Grow(max(keepAtOnce, len(text)))
	}
	from := r.kept.Len()
	r.kept.Write(text)
	return r.kept.String()[from:]
}

// keepOr is keep, but returns other if it is equal.
func (r *pageReader) keepOr(other string, raw []byte) string {
	if string(r.unquoted(raw)) == other {
		return other
	}
	return r.keep(raw)
}

// unquoted returns the text of a string, nothing for null, and any other value as it was
// written. Bytes that are not UTF-8 stay. The text is valid until the next call.
func (r *pageReader) unquoted(raw []byte) []byte {
	switch {
	case isNull(raw):
		return nil
	case raw[0] != '"':
		return raw
	case bytes.IndexByte(raw, '\\') < 0:
		return raw[1 : len(raw)-1]
	}
	var err error
	if r.scratch, err = jsontext.AppendUnquote(r.scratch[:0], raw); err == nil {
		return r.scratch
	}
	// It replaces bytes that are not UTF-8 as well as half surrogate pairs. Only the
	// latter have to be, and they are ASCII.
	r.scratch = r.scratch[:0]
	isASCII := func(b byte) bool { return b < utf8.RuneSelf }
	for rest := raw[1 : len(raw)-1]; len(rest) > 0; {
		n := 1
		for n < len(rest) && isASCII(rest[n]) == isASCII(rest[0]) {
			n++
		}
		if isASCII(rest[0]) {
			r.scratch, _ = jsontext.AppendUnquote(r.scratch, `"`+string(rest[:n])+`"`)
		} else {
			r.scratch = append(r.scratch, rest[:n]...)
		}
		rest = rest[n:]
	}
	return r.scratch
}

// escapes match the escapes of a JSON text: a surrogate pair, half a pair, any other.
var escapes = regexp.MustCompile(`(?s)\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)`)

// pairSurrogates replaces escapes of half a surrogate pair in a payload that looks
// like JSON. Destinations get such a payload as JSON, and strict readers refuse it.
func pairSurrogates(payload string) string {
	if payload == "" || payload[0] != '{' && payload[0] != '[' || !strings.Contains(payload, `\ud`) && !strings.Contains(payload, `\uD`) {
		return payload
	}
	return escapes.ReplaceAllStringFunc(payload, func(s string) string {
		if len(s) == len(`\ud800`) { // only half a pair is that long
			return `\ufffd`
		}
		return s
	})
}

// members calls f for each member of a JSON object, with its value as text: that of
// a string without quotes and escapes, and any other as it was written.
func members(object string, f func(name, value string, null bool)) error {
	text := []byte(object)
	r := &pageReader{Decoder: newDecoder(text), text: text}
	if r.PeekKind() != jsontext.KindBeginObject {
		return errors.New("not a JSON object")
	}
	_, err := r.fields(func(name, raw []byte) {
		f(string(r.unquoted(name)), string(r.unquoted(raw)), isNull(raw))
	})
	return err
}
