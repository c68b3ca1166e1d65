package cloudwatch

import (
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/awscall"
)

// body is the body of a call, written event by event, with the place of each event in it.
// Its memory is used again for other calls.
type body struct {
	text   []byte
	events []event
	size   int // as AWS counts it
}

// event is an entry on its way into a call.
type event struct {
	entry    int // its index among the entries of Put
	id       string
	at       int64 // the time that it is filed under, in milliseconds
	from, to int   // where its quoted message is in the text
}

const (
	eventBefore = `{"message":`
	eventAfter  = `,"timestamp":`
	bodyEnd     = `]}`
	// maxBody is the usual size of a text, in bytes.
	maxBody = maxCallBytes * 5 / 4
)

// begin empties the body for another call, of up to n events that are about as large as
// message.
func (b *body) begin(before, message []byte, n int) {
	b.text = slices.Grow(b.text[:0], len(before)+min(n*(len(message)*5/4+50), maxBody)+len(bodyEnd))
	b.text = append(b.text, before...)
	b.events, b.size = b.events[:0], 0
}

// bodyBegin returns the part of a body that comes before the events.
func bodyBegin(group, stream string) []byte {
	b, _ := jsontext.AppendQuote([]byte(`{"logGroupName":`), group)
	b, _ = jsontext.AppendQuote(append(b, `,"logStreamName":`...), stream)
	return append(b, `,"logEvents":[`...)
}

// takes reports whether there is room for an event with a message. Events are added in
// order of time.
func (b *body) takes(message []byte, at int64) bool {
	return b.size+len(message)+eventOverhead <= maxCallBytes && len(b.events) < maxCallEvents &&
		at-b.events[0].at < maxCallSpan.Milliseconds()
}

// add adds an event. Bytes that are not UTF-8 become U+FFFD.
func (b *body) add(e event, message []byte) {
	b.beginEvent()
	e.from = len(b.text)
	b.text = awscall.AppendQuote(b.text, message)
	e.to = len(b.text)
	b.size += len(message) + eventOverhead
	b.endEvent(e)
}

// addFrom adds an event of another call, filed under another time.
func (b *body) addFrom(other *body, e event, at int64) {
	b.beginEvent()
	quoted := other.text[e.from:e.to]
	e.at, e.from = at, len(b.text)
	b.text = append(b.text, quoted...)
	e.to = len(b.text)
	b.endEvent(e)
}

func (b *body) beginEvent() {
	if len(b.events) > 0 {
		b.text = append(b.text, ',')
	}
	b.text = append(b.text, eventBefore...)
}

func (b *body) endEvent(e event) {
	b.text = append(b.text, eventAfter...)
	b.text = append(strconv.AppendInt(b.text, e.at, 10), '}')
	b.events = append(b.events, e)
}
