package cloudtrail

import (
	"crypto/sha256"
	"encoding/hex"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// The parts of a request's body.
const (
	bodyOpen     = `{"auditEvents":[`
	bodyClose    = `]}`
	eventOpen    = `{"id":`
	eventData    = `,"eventData":"`
	eventSum     = `","eventDataChecksum":"`
	eventClose   = `"}`
	checksumSize = 44 // base64 of a SHA-256
)

// chunk is how much of a body is encoded at a time, in bytes, more or less.
const chunk = 16 << 10

// body is the body of a request. It encodes the events as they are read, twice
// for each call (for the signature, and for the service): that costs less than
// to keep a second copy of them, of up to 1 MB, for each call in flight.
type body struct {
	events []AuditEvent
	next   int    // event that is encoded next
	pos    int    // how much of its data has been
	opened bool   // its head has been
	ended  bool   // everything has been
	buf    []byte // encoded
	off    int    // read of it
}

func newBody(events []AuditEvent) *body {
	return &body{events: events}
}

func (b *body) rewind() {
	*b = body{events: b.events, buf: b.buf[:0]}
}

// hash returns the SHA-256 of the body in hex, and its length.
func (b *body) hash() (string, int64) {
	h, n := sha256.New(), int64(0)
	for b.fill() {
		h.Write(b.buf)
		n += int64(len(b.buf))
	}
	var sum [sha256.Size]byte
	return hex.EncodeToString(h.Sum(sum[:0])), n
}

func (b *body) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if b.off == len(b.buf) {
			if !b.fill() {
				break
			}
			b.off = 0
		}
		m := copy(p[n:], b.buf[b.off:])
		b.off += m
		n += m
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (b *body) Close() error { return nil }

// fill encodes the next piece into buf. It returns false after the last one.
func (b *body) fill() bool {
	if b.ended {
		return false
	}
	if b.buf == nil {
		b.buf = make([]byte, 0, 2*chunk)
	}
	b.buf = b.buf[:0]
	if b.next == 0 && !b.opened {
		b.buf = append(b.buf, bodyOpen...)
	}
	for len(b.buf) < chunk {
		if b.next == len(b.events) {
			b.buf = append(b.buf, bodyClose...)
			b.ended = true
			break
		}
		b.piece(&b.events[b.next])
	}
	return true
}

// piece encodes the head of an event, a part of its data, and its tail, as far as due.
func (b *body) piece(e *AuditEvent) {
	if !b.opened {
		if b.next > 0 {
			b.buf = append(b.buf, ',')
		}
		b.buf = append(b.buf, eventOpen...)
		b.buf = append(b.buf, '"')
		b.buf = appendEscaped(b.buf, aws.ToString(e.Id))
		b.buf = append(b.buf, '"')
		b.buf = append(b.buf, eventData...)
		b.opened = true
	}
	data := aws.ToString(e.EventData)
	part := data[b.pos:min(b.pos+chunk/2, len(data))]
	b.buf = appendEscaped(b.buf, part)
	if b.pos += len(part); b.pos < len(data) {
		return
	}
	if e.EventDataChecksum != nil {
		b.buf = append(b.buf, eventSum...)
		b.buf = appendEscaped(b.buf, *e.EventDataChecksum)
	}
	b.buf = append(b.buf, eventClose...)
	b.next, b.pos, b.opened = b.next+1, 0, false
}

// escape says how a byte stands in a JSON string: 0 as it is, 'u' as \u00XX,
// any other after a backslash.
var escape = func() (t [256]byte) {
	for c := range 0x20 {
		t[c] = 'u'
	}
	t['"'], t['\\'], t['\b'], t['\f'], t['\n'], t['\r'], t['\t'] = '"', '\\', 'b', 'f', 'n', 'r', 't'
	return t
}()

// appendEscaped appends s, which is UTF-8, as it stands in a JSON string. It
// takes bytes, not runes, so that s may end anywhere.
func appendEscaped(dst []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); i++ {
		e := escape[s[i]]
		if e == 0 {
			continue
		}
		dst = append(dst, s[start:i]...)
		if e == 'u' {
			const digits = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', digits[s[i]>>4], digits[s[i]&15])
		} else {
			dst = append(dst, '\\', e)
		}
		start = i + 1
	}
	return append(dst, s[start:]...)
}

// escapedSize is the length of JSON text as it stands in a JSON string. Of what
// must be escaped, JSON text holds only these five.
func escapedSize(text []byte) int {
	n := len(text)
	for _, c := range [...]byte{'"', '\\', '\n', '\r', '\t'} {
		n += countByte(text, c)
	}
	return n
}
