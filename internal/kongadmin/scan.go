package kongadmin

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds how deep a value may nest. Kong's own encoder stops at 1000.
const maxDepth = 1000

// scanner reads JSON text once, from front to back, and checks all of it on the
// way: what it has read to the end without bad being set is well-formed by RFC
// 8259. The one liberty it takes is that strings may hold bytes that are not
// UTF-8, for Kong passes on whatever came in a path.
//
// A decoder that first checks, then finds values, and then their fields reads a
// page four times. This is the cheapest part of a pass that keeps every promise,
// because nothing of what it returns is a copy.
type scanner struct {
	s   string
	i   int
	bad bool

	// Unknown fields of the row at hand, in their order, and where each is.
	unknown []member
	known   map[string]int
}

// member is a field of an object, as it was written.
type member struct{ name, raw string }

// kind is the type of a value.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindText
	kindObject
	kindArray
)

// value is a value as it was written.
type value struct {
	raw     string
	kind    kind
	escaped bool // a text that holds escapes
}

// fail ends the walk: everything that follows is at the end of the text and fails too.
func (p *scanner) fail() {
	p.bad = true
	p.i = len(p.s)
}

// peek skips white space and returns the byte after it, or 0 at the end.
func (p *scanner) peek() byte {
	for ; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// open enters an object or array, and tells whether it holds anything.
func (p *scanner) open(begin, end byte) bool {
	if p.peek() != begin {
		p.fail()
		return false
	}
	p.i++
	if p.peek() == end {
		p.i++
		return false
	}
	return !p.bad
}

// more goes on after an element, and tells whether another follows.
func (p *scanner) more(end byte) bool {
	switch p.peek() {
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

// name reads the name of an object's member, and the colon.
func (p *scanner) name() value {
	if p.peek() != '"' {
		p.fail()
		return value{}
	}
	v := p.text()
	if p.peek() != ':' {
		p.fail()
		return value{}
	}
	p.i++
	return v
}

// end tells whether the whole text was well-formed.
func (p *scanner) end() bool {
	p.peek()
	return !p.bad && p.i == len(p.s)
}

// value reads any value. depth is how many more objects and arrays it may open.
func (p *scanner) value(depth int) value {
	switch c := p.peek(); c {
	case '"':
		return p.text()
	case '{', '[':
		return p.composite(c, depth)
	case 't':
		return p.literal("true", kindBool)
	case 'f':
		return p.literal("false", kindBool)
	case 'n':
		return p.literal("null", kindNull)
	default:
		return p.number()
	}
}

func (p *scanner) literal(word string, k kind) value {
	if !strings.HasPrefix(p.s[p.i:], word) {
		p.fail()
		return value{}
	}
	p.i += len(word)
	return value{raw: word, kind: k}
}

// composite reads an object or an array for what it looks like.
func (p *scanner) composite(begin byte, depth int) value {
	if depth == 0 {
		p.fail()
		return value{}
	}
	start, end, k := p.i, byte('}'), kindObject
	if begin == '[' {
		end, k = ']', kindArray
	}
	for more := p.open(begin, end); more; more = p.more(end) {
		if k == kindObject {
			p.name()
		}
		p.value(depth - 1)
	}
	return value{raw: p.s[start:p.i], kind: k}
}

func (p *scanner) number() value {
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
	return value{raw: p.s[start:p.i], kind: kindNumber}
}

func (p *scanner) skip(c byte) bool {
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *scanner) digits() bool {
	start := p.i
	for p.i < len(p.s) && p.s[p.i]-'0' <= 9 {
		p.i++
	}
	return p.i > start
}

// special are the bytes that end a run of plain ones inside a string.
var special = func() (t [256]bool) {
	for i := range t {
		t[i] = i < ' ' || i == '"' || i == '\\'
	}
	return t
}()

// text reads a string; the next byte is its quote.
func (p *scanner) text() value {
	s, start := p.s, p.i
	escaped := false
	for i := start + 1; i < len(s); {
		switch c := s[i]; {
		case !special[c]:
			i++
		case c == '"':
			p.i = i + 1
			return value{raw: s[start:p.i], kind: kindText, escaped: escaped}
		case c < ' ':
			p.fail()
			return value{}
		default:
			n := escape(s[i:])
			if n == 0 {
				p.fail()
				return value{}
			}
			escaped = true
			i += n
		}
	}
	p.fail()
	return value{}
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

// text is a string's value, nothing for null, and any other value as it was written.
func (v value) text() string {
	switch {
	case v.kind == kindNull:
		return ""
	case v.kind != kindText:
		return v.raw
	case v.escaped:
		return unescape(v.raw[1 : len(v.raw)-1])
	}
	return v.raw[1 : len(v.raw)-1]
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

// integer is the value of a number, or of a string that holds one, without what
// comes after its point. It fails for all that no int64 can hold.
func (v value) integer() (int64, bool) {
	s := v.raw
	switch v.kind {
	case kindNumber:
	case kindText:
		p := scanner{s: v.text()}
		if s = p.number().raw; p.bad || p.i != len(p.s) {
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

// field returns a field of a JSON object as text, and nothing if there is none or
// raw is not JSON.
func field(raw, name string) string {
	p := scanner{s: raw}
	found := ""
	for more := p.open('{', '}'); more; more = p.more('}') {
		n := p.name()
		if v := p.value(maxDepth); !p.bad && n.text() == name {
			found = v.text()
		}
	}
	if !p.end() {
		return ""
	}
	return found
}
