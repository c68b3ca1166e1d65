package cloudtrailtest

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// call is the memory of one call, used again for the next.
type call struct {
	body   bytes.Buffer
	text   []byte // the decoded eventData of all events
	events []auditEvent
	taken  []accepted
	failed []failedEvent
	answer []byte
}

// auditEvent is one event of a request.
type auditEvent struct {
	id       string
	data     []byte
	checksum string
}

type failedEvent struct {
	id string
	failure
}

func (s *Server) putAuditEvents(w http.ResponseWriter, r *http.Request) {
	p := s.plan()
	if p.Reset {
		s.store.count(func(c *Counts) { c.Lost++ })
		reset(w)
	}
	c, ok := s.calls.Get().(*call)
	if !ok {
		c = &call{}
	}
	defer s.calls.Put(c)
	if e := s.put(r, &p, c); e != nil {
		s.store.count(func(n *Counts) {
			n.Refused++
			n.Codes[e.code]++
			if e == errThrottled {
				n.Throttled++
			}
		})
		s.writeError(w, dataProtocol, e)
		return
	}
	switch {
	case p.LoseAnswer:
		s.store.count(func(c *Counts) { c.Lost++ })
		panic(http.ErrAbortHandler)
	case p.Garbage:
		c.answer = append(c.answer[:0], `{"successful":[{"id":"<html><h1>`...)
	}
	w.Header().Set("Content-Type", dataProtocol.contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(c.answer)))
	_, _ = w.Write(c.answer) // a client that has gone needs no answer
}

var errThrottled = refuse("ThrottlingException", "Rate exceeded")

// put handles a call up to its answer.
func (s *Server) put(r *http.Request, p *plan, c *call) *apiError {
	if e := c.read(r); e != nil {
		return e
	}
	s.store.count(func(n *Counts) { n.Calls++ })
	if !s.o.Unsigned {
		if e := s.verify(r, c.body.Bytes(), "cloudtrail-data"); e != nil {
			return e
		}
	}
	if s.throttled() {
		return errThrottled
	}
	wait(r, p.Delay)
	if p.Code != "" {
		return refuse(p.Code, "fault on request")
	}
	account, e := s.channel(r.URL.Query())
	if e != nil {
		return e
	}
	if e := c.decode(s.o.Lean); e != nil {
		return e
	}
	omitted := s.judge(c, p, account)
	s.store.add(c.taken, s.o.Now())
	if len(c.failed) > 0 || omitted > 0 {
		s.store.count(func(n *Counts) {
			n.Omitted += omitted
			n.Failed += len(c.failed)
			for i := range c.failed {
				n.Codes[c.failed[i].code]++
			}
		})
	}
	c.write()
	return nil
}

// judge sorts the events of a call into taken and failed. It returns how many
// are neither.
func (s *Server) judge(c *call, p *plan, account string) (omitted int) {
	check := checker{account: account, eventSource: s.o.EventSource, emptyType: s.o.AllowEmptyType}
	c.taken, c.failed = c.taken[:0], c.failed[:0]
	for i := range c.events {
		e := &c.events[i]
		a := accepted{id: e.id, data: e.data}
		if !s.o.Lean {
			var f *failure
			if a.columns, f = check.check(e.data); f == nil && e.checksum != "" && !checksumMatches(e.data, e.checksum) {
				f = &failure{"InvalidChecksum", "eventDataChecksum is not the SHA-256 of eventData"}
			}
			if f != nil {
				c.failed = append(c.failed, failedEvent{e.id, *f})
				continue
			}
		}
		switch omit, code := p.event(e.id); {
		case omit:
			omitted++
		case code != "":
			c.failed = append(c.failed, failedEvent{e.id, failure{code, "fault on request"}})
		default:
			c.taken = append(c.taken, a)
		}
	}
	return omitted
}

// read reads the body. One that is too large is read to its end, within reason,
// so that the client sees the answer.
func (c *call) read(r *http.Request) *apiError {
	c.body.Reset()
	if r.ContentLength > 0 && r.ContentLength <= MaxBody {
		c.body.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	n, err := c.body.ReadFrom(io.LimitReader(r.Body, MaxBody+1))
	switch {
	case err != nil:
		return refuse("SerializationException", "the body could not be read")
	case n > MaxBody:
		_, _ = io.CopyN(io.Discard, r.Body, 32<<20) // the answer is the same whatever is left
		return &apiError{http.StatusRequestEntityTooLarge, "ValidationException", "the request is larger than 1 MB"}
	}
	return nil
}

// channel checks the query and returns the account that owns the channel.
func (s *Server) channel(q url.Values) (string, *apiError) {
	arn := q.Get("channelArn")
	if arn == "" {
		return "", invalid("Value null at 'channelArn' failed to satisfy constraint: Member must not be null")
	}
	if _, _, ok := parseChannel(arn); !ok {
		return "", refuse("InvalidChannelARN", "The specified channel ARN is not a valid channel ARN.")
	}
	account, ok := s.accounts[arn]
	if !ok {
		return "", refuse("ChannelNotFound", "The channel could not be found.")
	}
	id := q.Get("externalId")
	if q.Has("externalId") && (len(id) < 2 || len(id) > 1224 || !each(id, externalIDByte)) {
		return "", invalid("Value at 'externalId' failed to satisfy constraint: Member must satisfy regular expression pattern")
	}
	if s.o.ExternalID != "" && id != s.o.ExternalID {
		return "", refuse("ChannelInsufficientPermission", "The caller's account ID must be the same as the channel owner's account ID.")
	}
	return account, nil
}

func externalIDByte(c byte) bool {
	if alphanumeric(c) {
		return true
	}
	switch c {
	case '_', '+', '=', ',', '.', '@', ':', '/', '-':
		return true
	}
	return false
}

func validID(b []byte) bool {
	if len(b) == 0 || len(b) > maxID {
		return false
	}
	for _, c := range b {
		if !alphanumeric(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// decode reads the body into events. With lean, eventData stays undecoded and is left out.
func (c *call) decode(lean bool) *apiError {
	clear(c.events)
	c.events = c.events[:0]
	if n := c.body.Len(); !lean && cap(c.text) < n {
		c.text = make([]byte, 0, n) // decoded text is never longer than encoded text
	}
	c.text = c.text[:0]
	present := false
	var refused *apiError
	d := jsontext.NewDecoder(bytes.NewBuffer(c.body.Bytes()), jsonOptions...)
	err := object(d, func(name string) error {
		if name != "auditEvents" {
			return d.SkipValue()
		}
		present = true
		return array(d, func() error {
			if len(c.events) == MaxEvents {
				refused = invalid("Value at 'auditEvents' failed to satisfy constraint: Member must have length less than or equal to 100")
				return refused
			}
			e, bad, err := c.auditEvent(d, lean)
			if err != nil {
				return err
			}
			if bad != nil && refused == nil {
				refused = bad // malformed JSON further on is worse
			}
			c.events = append(c.events, e)
			return nil
		})
	})
	if err == nil {
		err = end(d)
	}
	switch {
	case refused != nil && (err == nil || errors.Is(err, refused)):
		return refused
	case err != nil || !utf8.Valid(c.body.Bytes()):
		return refuse("SerializationException", "the body is not a JSON object of the expected form")
	case !present:
		return invalid("Value null at 'auditEvents' failed to satisfy constraint: Member must not be null")
	case len(c.events) == 0:
		return invalid("Value at 'auditEvents' failed to satisfy constraint: Member must have length greater than or equal to 1")
	}
	seen := make(map[string]struct{}, len(c.events))
	for i := range c.events {
		seen[c.events[i].id] = struct{}{}
	}
	if len(seen) < len(c.events) {
		return refuse("DuplicatedAuditEventId", "Two or more entries in the request have the same event ID.")
	}
	return nil
}

// auditEvent reads one member of auditEvents.
func (c *call) auditEvent(d *jsontext.Decoder, lean bool) (e auditEvent, bad *apiError, err error) {
	var hasID, hasData bool
	err = object(d, func(name string) error {
		kind := d.PeekKind()
		known := name == "id" || name == "eventData" || name == "eventDataChecksum"
		if !known || kind == 'n' {
			return d.SkipValue()
		}
		v, err := d.ReadValue()
		if err != nil {
			return err
		}
		if kind != '"' {
			return errJSON
		}
		switch name {
		case "id":
			text, _ := jsontext.AppendUnquote(nil, v)
			hasID, e.id = validID(text), string(text)
		case "eventData":
			hasData = true
			if !lean {
				from := len(c.text)
				c.text, _ = jsontext.AppendUnquote(c.text, v)
				e.data = c.text[from:len(c.text):len(c.text)]
			}
		default:
			text, _ := jsontext.AppendUnquote(nil, v)
			e.checksum = string(text)
		}
		return nil
	})
	switch {
	case err != nil:
		return e, nil, err
	case !hasID:
		return e, invalid("Value at 'auditEvents.member.id' failed to satisfy constraint: Member must have length between 1 and 128 " +
			"and satisfy regular expression pattern: ^[-_A-Za-z0-9]*$"), nil
	case !hasData:
		return e, invalid("Value null at 'auditEvents.member.eventData' failed to satisfy constraint: Member must not be null"), nil
	}
	return e, nil, nil
}

// write makes the answer. Ids need no escaping: they match their pattern.
func (c *call) write() {
	b := c.answer[:0]
	b = append(b, `{"successful":[`...)
	for i := range c.taken {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"id":"`...)
		b = append(b, c.taken[i].id...)
		b = append(b, `","eventID":"`...)
		b = append(b, c.taken[i].eventID...)
		b = append(b, `"}`...)
	}
	b = append(b, `],"failed":[`...)
	for i := range c.failed {
		if i > 0 {
			b = append(b, ',')
		}
		f, err := json.Marshal(map[string]string{
			"id": c.failed[i].id, "errorCode": c.failed[i].code, "errorMessage": c.failed[i].message,
		})
		if err != nil { // a map of strings always encodes
			panic(err)
		}
		b = append(b, f...)
	}
	b = append(b, `]}`...)
	c.answer = b
}
