package jsonscan

import (
	"math/bits"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

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
