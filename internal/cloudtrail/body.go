package cloudtrail

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kong-cloudtrail/relay/internal/jsonscan"
)

// The parts of a request's body.
const (
	bodyOpen     = `{"auditEvents":[`
	bodyClose    = `]}`
	eventOpen    = `{"id":"`
	eventData    = `","eventData":"`
	eventSum     = `","eventDataChecksum":"`
	eventClose   = `"}`
	bodySize     = len(bodyOpen) + len(bodyClose) - len(",") // without the events, each of which has a comma
	checksumSize = 44                                        // base64 of a SHA-256
)

const (
	// chunk is how much of a body is encoded at a time, in bytes, more or less.
	chunk = 16 << 10
	// maxKept is the largest body, in bytes, that is kept as encoded for its hash
	// until it has been sent. A larger one is encoded again as it is sent: it has
	// few events, so that costs little for each, and a second copy of up to 1 MB
	// for each call in flight would cost more.
	maxKept = 192 << 10
)

// payload is what a request carries. An HTTP client may read a body even after
// it has returned the answer (of a service that did not wait for all of it), and
// it may want another body for another connection. So an encoding is used again
// only if the client is known to have read all bodies of it to their end, and a
// body that is encoded as it is read ends once the payload is released.
type payload struct {
	encoded      []byte       // the whole body, unless it was too large
	begun, ended atomic.Int32 // bodies of encoded that were handed out, and that are done with

	mu       sync.Mutex
	events   []AuditEvent
	released bool
}

var encodings = sync.Pool{New: func() any { return new([]byte) }}

// newPayload encodes the events. It returns their SHA-256 in hex and their length as well.
func newPayload(events []AuditEvent) (p *payload, hash string, length int64) {
	p = &payload{events: events, encoded: *encodings.Get().(*[]byte)}
	enc := encoder{events: events, buf: p.encoded[:0]}
	h := sha256.New()
	kept := true
	for at := 0; enc.fill(); {
		h.Write(enc.buf[at:])
		length += int64(len(enc.buf) - at)
		if at = len(enc.buf); at > maxKept {
			kept, at, enc.buf = false, 0, enc.buf[:0]
		}
	}
	if p.encoded = enc.buf; !kept {
		p.encoded = nil
		encodings.Put(&enc.buf)
	}
	var sum [sha256.Size]byte
	return p, hex.EncodeToString(h.Sum(sum[:0])), length
}

// traced returns a context for the requests that carry the payload: with it an
// HTTP client tells when it is done with a body.
func (p *payload) traced(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { p.ended.Add(1) },
	})
}

// release ends all reading: the events and the encoding can be used for others.
func (p *payload) release() {
	if p.encoded != nil && p.begun.Load() == p.ended.Load() {
		encodings.Put(&p.encoded)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events, p.released = nil, true
}

// body returns a body of the payload. An HTTP client sends one that it knows to
// be in memory along with the head of the request, in as few writes as can be.
func (p *payload) body() io.ReadCloser {
	if p.encoded != nil {
		p.begun.Add(1)
		return io.NopCloser(bytes.NewReader(p.encoded))
	}
	return &body{payload: p, encoder: encoder{events: p.events}}
}

// body is one reading of a payload that was too large to be kept.
type body struct {
	payload *payload
	encoder encoder
	off     int // read so far, of the encoder's buffer
}

func (b *body) Read(p []byte) (int, error) {
	b.payload.mu.Lock()
	defer b.payload.mu.Unlock()
	if b.payload.released {
		return 0, errReleased
	}
	n := 0
	for n < len(p) {
		if b.off == len(b.encoder.buf) {
			b.off, b.encoder.buf = 0, b.encoder.buf[:0]
			if !b.encoder.fill() {
				break
			}
		}
		m := copy(p[n:], b.encoder.buf[b.off:])
		b.off += m
		n += m
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (b *body) Close() error { return nil }

var errReleased = errors.New("the call is over")

// encoder writes the body for some events, piece by piece.
type encoder struct {
	events []AuditEvent
	buf    []byte
	next   int  // event that is encoded next
	pos    int  // how much of its data has been
	opened bool // its head has been
	ended  bool // everything has been
}

// fill appends the next piece to buf, about a chunk of it. It returns false after the last one.
func (e *encoder) fill() bool {
	if e.ended {
		return false
	}
	if e.next == 0 && !e.opened {
		e.buf = append(slices.Grow(e.buf, 2*chunk), bodyOpen...)
	}
	for end := len(e.buf) + chunk; len(e.buf) < end; {
		if e.next == len(e.events) {
			e.buf = append(e.buf, bodyClose...)
			e.ended = true
			break
		}
		e.piece(&e.events[e.next])
	}
	return true
}

// piece appends the head of an event, a part of its data, and its tail, as far as due.
func (e *encoder) piece(ev *AuditEvent) {
	if !e.opened {
		if e.next > 0 {
			e.buf = append(e.buf, ',')
		}
		e.buf = append(e.buf, eventOpen...)
		e.buf = appendEscaped(e.buf, aws.ToString(ev.Id))
		e.buf = append(e.buf, eventData...)
		e.opened = true
	}
	data := aws.ToString(ev.EventData)
	part := data[e.pos:min(e.pos+chunk/2, len(data))]
	e.buf = appendEscaped(e.buf, part)
	if e.pos += len(part); e.pos < len(data) {
		return
	}
	if ev.EventDataChecksum != nil {
		e.buf = append(e.buf, eventSum...)
		e.buf = appendEscaped(e.buf, *ev.EventDataChecksum)
	}
	e.buf = append(e.buf, eventClose...)
	e.next, e.pos, e.opened = e.next+1, 0, false
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
// takes bytes, not runes, so that s may end anywhere. Eight at a time: byte by
// byte, this is the largest part of what a call costs after its hashes.
func appendEscaped(dst []byte, s string) []byte {
	for s != "" {
		// Room for the worst of a part, so that what is common needs no check.
		part := s[:min(len(s), 1024)]
		s = s[len(part):]
		dst = slices.Grow(dst, 6*len(part)+8)
		out := dst[len(dst):cap(dst)]
		n := 0
		for i := 0; i < len(part); {
			if len(part)-i >= 8 {
				word := jsonscan.Word(part[i:])
				binary.LittleEndian.PutUint64(out[n:], word)
				plain := jsonscan.Plain(word)
				n += plain
				if i += plain; plain == 8 {
					continue
				}
			}
			c := part[i]
			i++
			switch e := escape[c]; e {
			case 0:
				out[n] = c
				n++
			case 'u':
				const digits = "0123456789abcdef"
				n += copy(out[n:], []byte{'\\', 'u', '0', '0', digits[c>>4], digits[c&15]})
			default:
				binary.LittleEndian.PutUint16(out[n:], '\\'|uint16(e)<<8)
				n += 2
			}
		}
		dst = dst[:len(dst)+n]
	}
	return dst
}

// escapedSize is the length of JSON text as it stands in a JSON string. Of what
// must be escaped, JSON text holds only these five.
func escapedSize(text []byte) int {
	n := len(text)
	for _, c := range [...]string{`"`, `\`, "\n", "\r", "\t"} {
		n += bytes.Count(text, []byte(c))
	}
	return n
}
