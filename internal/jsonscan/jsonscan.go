// Package jsonscan reads JSON text once, from front to back, without copying it.
package jsonscan

import (
	"math"
	"strconv"
	"strings"
)

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
