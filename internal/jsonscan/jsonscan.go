// Package jsonscan reads JSON text once, from front to back, without copying it.
package jsonscan

import (
	"errors"
	"io"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// ErrTooLong ends a Read of more than it was allowed.
var ErrTooLong = errors.New("text is too long")

// Read reads a text of at most limit bytes to its end. size is its length, if that
// is known, and less than 0 if not. After an error it returns what was read.
func Read(r io.Reader, size, limit int64) (string, error) {
	room := min(size, limit) + 1 // one byte more, to see the end
	if size < 0 {
		room = min(64<<10, limit+1)
	}
	b := make([]byte, 0, room)
	// Nothing changes what has been read any more: a text of it needs no copy.
	text := func() string { return unsafe.String(unsafe.SliceData(b), len(b)) } //nolint:gosec // see above
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return text(), ErrTooLong
		case err == io.EOF:
			return text(), nil
		case err != nil:
			return text(), err
		case len(b) == cap(b):
			b = slices.Grow(b, len(b))
		}
	}
}

// MaxDepth is how deep a value may nest. Kong's own encoder stops there.
const MaxDepth = 1000

// Scanner reads JSON text and checks all of it on the way: text that it has read
// to its End is well-formed by RFC 8259, and only then may what was read be
// believed. The one liberty it takes is that strings may hold bytes that are not
// UTF-8, for Kong passes on whatever came in a path. After a failure all methods
// return at once, as at the end of the text.
//
// A decoder that first checks, then finds values, and then their fields reads a
// page four times. Nothing of what this one returns is a copy, unless it held
// escapes.
type Scanner struct {
	s   string
	i   int
	bad bool
}

// New returns a scanner at the beginning of a text.
func New(text string) Scanner { return Scanner{s: text} }

// Kind is the type of a value.
type Kind uint8

// Kinds.
const (
	Null Kind = iota
	Bool
	Number
	Text
	Object
	Array
)

// Value is a value as it was written.
type Value struct {
	Raw     string
	Kind    Kind
	escaped bool // a text that holds escapes
}

// Failed tells whether the text has turned out not to be JSON.
func (p *Scanner) Failed() bool { return p.bad }

// Offset is how many bytes have been read.
func (p *Scanner) Offset() int { return p.i }

// fail ends the walk: everything that follows is at the end of the text and fails too.
func (p *Scanner) fail() {
	p.bad = true
	p.i = len(p.s)
}

// Peek skips white space and returns the byte after it, or 0 at the end.
func (p *Scanner) Peek() byte {
	for ; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// Open enters an object or array, and tells whether it holds anything.
func (p *Scanner) Open(begin, end byte) bool {
	if p.Peek() != begin {
		p.fail()
		return false
	}
	p.i++
	if p.Peek() == end {
		p.i++
		return false
	}
	return !p.bad
}

// More goes on after an element, and tells whether another follows.
func (p *Scanner) More(end byte) bool {
	switch p.Peek() {
	case ',':
		p.i++
		return true
	case end:
		p.i++
		return false
	}
	p.fail()
	return false
}

// Name reads the name of an object's member, and the colon.
func (p *Scanner) Name() Value {
	if p.Peek() != '"' {
		p.fail()
		return Value{}
	}
	v := p.text()
	if p.Peek() != ':' {
		p.fail()
		return Value{}
	}
	p.i++
	return v
}

// End tells whether the whole text was well-formed.
func (p *Scanner) End() bool {
	p.Peek()
	return !p.bad && p.i == len(p.s)
}

// Value reads any value.
func (p *Scanner) Value() Value { return p.value(MaxDepth) }

// value reads a value that may open so many objects and arrays within each other.
func (p *Scanner) value(depth int) Value {
	switch c := p.Peek(); c {
	case '"':
		return p.text()
	case '{', '[':
		return p.composite(c, depth)
	case 't':
		return p.literal("true", Bool)
	case 'f':
		return p.literal("false", Bool)
	case 'n':
		return p.literal("null", Null)
	default:
		return p.number()
	}
}

func (p *Scanner) literal(word string, k Kind) Value {
	if !strings.HasPrefix(p.s[p.i:], word) {
		p.fail()
		return Value{}
	}
	p.i += len(word)
	return Value{Raw: word, Kind: k}
}

// composite reads an object or an array for what it looks like.
func (p *Scanner) composite(begin byte, depth int) Value {
	if depth == 0 {
		p.fail()
		return Value{}
	}
	start, end, k := p.i, byte('}'), Object
	if begin == '[' {
		end, k = ']', Array
	}
	for more := p.Open(begin, end); more; more = p.More(end) {
		if k == Object {
			p.Name()
		}
		p.value(depth - 1)
	}
	return Value{Raw: p.s[start:p.i], Kind: k}
}

func (p *Scanner) number() Value {
	start := p.i
	p.skip('-')
	if !p.skip('0') && !p.digits() {
		p.fail()
	}
	if p.skip('.') && !p.digits() {
		p.fail()
	}
	if p.skip('e') || p.skip('E') {
		if !p.skip('+') {
			p.skip('-')
		}
		if !p.digits() {
			p.fail()
		}
	}
	return Value{Raw: p.s[start:p.i], Kind: Number}
}

func (p *Scanner) skip(c byte) bool {
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *Scanner) digits() bool {
	start := p.i
	for p.i < len(p.s) && p.s[p.i]-'0' <= 9 {
		p.i++
	}
	return p.i > start
}

// Word is the first eight bytes of a text of at least eight.
func Word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// Plain is how many bytes of a Word come before the first that cannot stand in a
// JSON string as it is: a quote, a backslash, or less than a space.
func Plain(word uint64) int {
	// The top bit of each byte tells. A borrow may set it wrongly, but only after
	// one that is right.
	const each = 0x0101010101010101
	quote, backslash := word^each*'"', word^each*'\\'
	found := ((word-each*' ')&^word | (quote-each)&^quote | (backslash-each)&^backslash) & (each * 0x80)
	return bits.TrailingZeros64(found) / 8
}

// IsPlain tells whether a text is ASCII that stands in a JSON string as it is.
func IsPlain(s string) bool {
	for len(s) >= 8 {
		word := Word(s)
		if word&(0x80*0x0101010101010101) != 0 || Plain(word) < 8 {
			return false
		}
		s = s[8:]
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x80 {
			return false
		}
	}
	return true
}

// text reads a string; the next byte is its quote.
func (p *Scanner) text() Value {
	s, start := p.s, p.i
	escaped := false
	for i := start + 1; i < len(s); {
		if len(s)-i >= 8 {
			n := Plain(Word(s[i:]))
			if i += n; n == 8 {
				continue
			}
		}
		switch c := s[i]; {
		case c == '"':
			p.i = i + 1
			return Value{Raw: s[start:p.i], Kind: Text, escaped: escaped}
		case c < ' ':
			p.fail()
			return Value{}
		case c == '\\':
			n := escape(s[i:])
			if n == 0 {
				p.fail()
				return Value{}
			}
			escaped = true
			i += n
		default:
			i++
		}
	}
	p.fail()
	return Value{}
}

// escape returns the length of the escape with which s begins, or 0 for none that JSON knows.
func escape(s string) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(s); ok {
			return 6
		}
	}
	return 0
}

// hex4 reads the code unit of an escape such as \u00e9.
func hex4(s string) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	var r rune
	for i := 2; i < 6; i++ {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// Text is a string's value, nothing for null, and any other value as it was written.
func (v Value) Text() string {
	switch {
	case v.Kind == Null:
		return ""
	case v.Kind != Text:
		return v.Raw
	case v.escaped:
		return unescape(v.Raw[1 : len(v.Raw)-1])
	}
	return v.Raw[1 : len(v.Raw)-1]
}

// unescape needs escapes that are known to be right. Half of a surrogate pair
// becomes U+FFFD, as everywhere.
func unescape(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i:]
		n := 2
		switch s[1] {
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'u':
			n = 6
			r, _ := hex4(s)
			if utf16.IsSurrogate(r) {
				second, _ := hex4(s[6:])
				if r = utf16.DecodeRune(r, second); r != utf8.RuneError {
					n = 12
				}
			}
			b.WriteRune(r)
		default:
			b.WriteByte(s[1])
		}
		s = s[n:]
	}
}

// Integer is the value of a number, or of a string that holds one, without what
// comes after its point. It fails for all that no int64 can hold.
func (v Value) Integer() (int64, bool) {
	s := v.Raw
	switch v.Kind {
	case Number:
	case Text:
		p := Scanner{s: v.Text()}
		if s = p.number().Raw; p.bad || p.i != len(p.s) {
			return 0, false
		}
	default:
		return 0, false
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f < math.MinInt64 || f >= math.MaxInt64 {
		return 0, false
	}
	return int64(f), true
}

// Field returns a field of a JSON object as text, and nothing if there is none or
// raw is not JSON.
func Field(raw, name string) string {
	p := Scanner{s: raw}
	found := ""
	for more := p.Open('{', '}'); more; more = p.More('}') {
		n := p.Name()
		if v := p.Value(); !p.bad && n.Text() == name {
			found = v.Text()
		}
	}
	if !p.End() {
		return ""
	}
	return found
}
