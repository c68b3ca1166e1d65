package cloudtrailtest

import (
	"bytes"
	"errors"
	"unicode/utf8"
)

// errJSON is all that is said about malformed text: never what it holds.
var errJSON = errors.New("not valid JSON")

// maxDepth bounds the nesting of objects and arrays.
const maxDepth = 1000

// scanner walks JSON text (RFC 8259, UTF-8 only) once, without building values.
// It is here because checking a hundred events must cost a fraction of what the
// relay under test spends on them.
type scanner struct {
	data  []byte
	pos   int
	depth int
}

// next skips white space and returns the byte that follows it, or 0 at the end.
func (s *scanner) next() byte {
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// end reports whether nothing but white space is left.
func (s *scanner) end() error {
	if s.next(); s.pos != len(s.data) {
		return errJSON
	}
	return nil
}

// object reads an object. member is called with each name, still escaped, and
// must read the value.
func (s *scanner) object(member func(name []byte) error) error {
	return s.list('{', '}', func() error {
		if s.next() != '"' {
			return errJSON
		}
		name, err := s.str()
		if err != nil {
			return err
		}
		if s.next() != ':' {
			return errJSON
		}
		s.pos++
		return member(name.raw)
	})
}

// array reads an array. item must read the value.
func (s *scanner) array(item func() error) error { return s.list('[', ']', item) }

func (s *scanner) list(open, closing byte, item func() error) error {
	if s.next() != open {
		return errJSON
	}
	if s.depth++; s.depth > maxDepth {
		return errJSON
	}
	s.pos++
	if s.next() == closing {
		s.pos++
		s.depth--
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.pos++
		case closing:
			s.pos++
			s.depth--
			return nil
		default:
			return errJSON
		}
	}
}

// value reads any value and returns its text.
func (s *scanner) value() ([]byte, error) {
	c := s.next()
	start := s.pos
	if err := s.skip(c); err != nil {
		return nil, err
	}
	return s.data[start:s.pos], nil
}

func (s *scanner) skip(c byte) error {
	switch {
	case c == '"':
		_, err := s.str()
		return err
	case c == '{':
		return s.object(func([]byte) error { return s.skip(s.next()) })
	case c == '[':
		return s.array(func() error { return s.skip(s.next()) })
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	}
	return errJSON
}

func (s *scanner) word(w string) error {
	if len(s.data)-s.pos < len(w) || string(s.data[s.pos:s.pos+len(w)]) != w {
		return errJSON
	}
	s.pos += len(w)
	return nil
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return errJSON
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return errJSON
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return errJSON
		}
	}
	return nil
}

func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *scanner) digits() bool {
	start := s.pos
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.pos++
	}
	return s.pos > start
}

// text is a JSON string as it stands, without its quotes.
type text struct {
	raw     []byte
	escaped bool
}

// plain marks the bytes that a string holds as they are: not a quote, a
// backslash, a control character or part of a longer UTF-8 sequence.
var plain = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// str reads a string; the scanner stands on its opening quote.
func (s *scanner) str() (text, error) {
	data := s.data
	start := s.pos + 1
	escaped, wide := false, false
	for i := start; i < len(data); {
		c := data[i]
		if plain[c] {
			i++
			continue
		}
		switch {
		case c == '\\':
			escaped = true
			if i+1 < len(data) && data[i+1] == '"' { // by far the most: eventData is JSON in a string
				i += 2
				continue
			}
			n := escapeLen(data[i:])
			if n == 0 {
				return text{}, errJSON
			}
			i += n
		case c == '"':
			raw := data[start:i]
			if wide && !utf8.Valid(raw) {
				return text{}, errJSON
			}
			s.pos = i + 1
			return text{raw, escaped}, nil
		case c >= utf8.RuneSelf:
			wide = true
			i++
		default:
			return text{}, errJSON
		}
	}
	return text{}, errJSON
}

// escapeLen is the length of the escape at the start of b, or 0.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) >= 6 && hex4(b[2:6]) >= 0 {
			return 6
		}
	}
	return 0
}

// hex4 reads four hexadecimal digits, or returns -1.
func hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// appendTo appends what the string means.
func (t text) appendTo(dst []byte) []byte {
	if !t.escaped {
		return append(dst, t.raw...)
	}
	for i := 0; i < len(t.raw); {
		c := t.raw[i]
		if c != '\\' {
			n := bytes.IndexByte(t.raw[i:], '\\')
			if n < 0 {
				n = len(t.raw) - i
			}
			dst = append(dst, t.raw[i:i+n]...)
			i += n
			continue
		}
		switch e := t.raw[i+1]; e {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, n := unescapeRune(t.raw[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		default:
			dst = append(dst, e)
		}
		i += 2
	}
	return dst
}

// unescapeRune reads \uXXXX, or a pair of them that make one rune. Half a pair
// means U+FFFD, as in encoding/json.
func unescapeRune(b []byte) (rune, int) {
	r := hex4(b[2:6])
	switch {
	case r < 0xd800 || r > 0xdfff:
		return r, 6
	case r < 0xdc00 && len(b) >= 12 && b[6] == '\\' && b[7] == 'u':
		if low := hex4(b[8:12]); low >= 0xdc00 && low <= 0xdfff {
			return (r-0xd800)<<10 + (low - 0xdc00) + 0x10000, 12
		}
	}
	return utf8.RuneError, 6
}

func (t text) String() string { return string(t.appendTo(nil)) }
