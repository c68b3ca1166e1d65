package cloudtrail

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
)

// Limits of a call.
const (
	maxEvents = 100
	maxBody   = 1_000_000 // bytes of the whole body; AWS says "under 1 MB"
)

const (
	bodyBegin   = `{"auditEvents":[`
	bodyEnd     = `]}`
	eventAround = len(`{"eventData":"","eventDataChecksum":"","id":""},`) + 44 // 44 for a checksum
)

// body is the body of a call, with the place of each event in it. Its memory is used again
// for other calls.
type body struct {
	text   []byte // without bodyEnd
	events []bodyEvent
	index  map[string]int // of each event by its id
	writer writer         // of one event at a time
	answer answer
}

// bodyEvent is an event of a call.
type bodyEvent struct {
	id       string
	from, to int // where it is in the text
}

func newBody() *body { return &body{index: make(map[string]int, maxEvents)} }

// encode makes b the body of a call with as many of the entries as fit, at least one. It
// stops at an entry that is one too many, is too large, or has the id of an earlier one.
func (d *Destination) encode(b *body, entries []audit.Entry) {
	entries = entries[:min(len(entries), maxEvents)]
	b.text, b.events = append(b.text[:0], bodyBegin...), b.events[:0]
	clear(b.index)
	w := &b.writer
	for i := range entries {
		id := eventID(&entries[i])
		if _, twice := b.index[id]; twice {
			break
		}
		w.reset()
		d.mapping.write(w, &entries[i])
		if i == 0 { // the others usually have the same size
			room := len(entries) * (len(w.buf)*5/4 + len(id) + eventAround)
			b.text = slices.Grow(b.text, min(room+len(bodyEnd), maxBody))
		}
		if !b.add(id, w.buf, sha256.Sum256(w.buf)) {
			break
		}
	}
}

// add adds an event and reports whether there was room for it. There is for the first one.
func (b *body) add(id string, eventData []byte, sum [sha256.Size]byte) bool {
	before := len(b.text)
	if len(b.events) > 0 {
		b.text = append(b.text, ',')
	}
	e := bodyEvent{id: id, from: len(b.text)}
	b.text = awscall.AppendQuote(append(b.text, `{"eventData":`...), eventData)
	b.text = base64.StdEncoding.AppendEncode(append(b.text, `,"eventDataChecksum":"`...), sum[:])
	b.text, _ = jsontext.AppendQuote(append(b.text, `","id":`...), id) // an id is UTF-8
	b.text = append(b.text, '}')
	if len(b.events) > 0 && len(b.text)+len(bodyEnd) > maxBody {
		b.text = b.text[:before]
		return false
	}
	e.to = len(b.text)
	b.index[id] = len(b.events)
	b.events = append(b.events, e)
	return true
}

func (b *body) whole() []byte { return append(b.text, bodyEnd...) }

// part returns the body of a call with the events from lo to hi, hi excluded.
func (b *body) part(lo, hi int) *body {
	from, to := b.events[lo].from, b.events[hi-1].to
	p := newBody()
	p.text = make([]byte, 0, len(bodyBegin)+to-from+len(bodyEnd))
	p.text = append(append(p.text, bodyBegin...), b.text[from:to]...)
	for _, e := range b.events[lo:hi] {
		e.from, e.to = e.from-from+len(bodyBegin), e.to-from+len(bodyBegin)
		p.index[e.id] = len(p.events)
		p.events = append(p.events, e)
	}
	return p
}

// answer is the body of a successful answer. It says what became of the events of the call.
type answer struct {
	Successful results `json:"successful"`
	Failed     results `json:"failed"`

	decoder jsontext.Decoder
}

// results is a list in an answer. Its memory is used again for other answers.
type results struct {
	list  []result
	given bool // the answer has the list, and it is not null
}

// UnmarshalJSONFrom implements [json.UnmarshalerFrom].
func (r *results) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	err := json.UnmarshalDecode(d, &r.list)
	r.given = r.list != nil
	return err
}

type result struct {
	ID           string `json:"id"`
	ErrorCode    string `json:"errorCode"`
	ErrorMessage string `json:"errorMessage"`
}

// errNoAnswer is the error of a success that does not say what became of the events.
var errNoAnswer = errors.New("neither successful nor failed events")

// read decodes the body of a successful answer. As the official client does, it reads one
// JSON value and ignores unknown fields.
func (a *answer) read(r io.Reader) error {
	a.Successful, a.Failed = results{list: a.Successful.list[:0]}, results{list: a.Failed.list[:0]}
	a.decoder.Reset(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	err := json.UnmarshalDecode(&a.decoder, a)
	if err == nil && !a.Successful.given && !a.Failed.given {
		return errNoAnswer
	}
	return err
}
