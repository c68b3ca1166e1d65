package cloudtrailtest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

// call is the memory of one call, used again for the next.
type call struct {
	body   bytes.Buffer
	events []auditEvent
	taken  []awstest.Event
	failed []failedEvent
	answer []byte
}

// auditEvent is one event of a request. A member that is null is one that is missing.
type auditEvent struct {
	ID       *string        `json:"id"`
	Data     jsontext.Value `json:"eventData"` // of a JSON string
	Checksum *string        `json:"eventDataChecksum"`
}

type failedEvent struct {
	ID      string `json:"id"`
	Code    string `json:"errorCode"`
	Message string `json:"errorMessage"`
}

func (s *Server) putAuditEvents(w http.ResponseWriter, r *http.Request) {
	p := s.Plan()
	if p.Reset {
		s.Count(func(c *Counts) { c.Lost++ })
		awstest.Reset(w)
	}
	c, ok := s.calls.Get().(*call)
	if !ok {
		c = &call{}
	}
	defer s.calls.Put(c)
	if e := s.put(r, &p, c); e != nil {
		s.Count(func(n *Counts) {
			n.Refused++
			n.Codes[e.Code]++
			if e == errThrottled {
				n.Throttled++
			}
		})
		dataProtocol.WriteError(w, e, s.o.ErrorsIn)
		return
	}
	switch {
	case p.LoseAnswer:
		s.Count(func(c *Counts) { c.Lost++ })
		panic(http.ErrAbortHandler)
	case p.Garbage:
		c.answer = append(c.answer[:0], `{"successful":[{"id":"<html><h1>`...)
	}
	dataProtocol.WriteText(w, http.StatusOK, c.answer)
}

var errThrottled = awstest.Refuse("ThrottlingException", "Rate exceeded")

// put handles a call up to its answer.
func (s *Server) put(r *http.Request, p *awstest.Plan, c *call) *awstest.Error {
	if e := c.read(r); e != nil {
		return e
	}
	s.Count(func(n *Counts) { n.Calls++ })
	if !s.o.Unsigned {
		if e := s.verify(r, c.body.Bytes(), "cloudtrail-data"); e != nil {
			return e
		}
	}
	if s.throttled() {
		return errThrottled
	}
	awstest.Wait(r, p.Delay)
	if p.Code != "" {
		return awstest.Refuse(p.Code, "fault on request")
	}
	account, e := s.channel(r.URL.Query())
	if e != nil {
		return e
	}
	if e := c.decode(); e != nil {
		return e
	}
	omitted := s.judge(c, p, account)
	s.Take(c.taken)
	if len(c.failed) > 0 || omitted > 0 {
		s.Count(func(n *Counts) {
			n.Omitted += omitted
			n.Failed += len(c.failed)
			for i := range c.failed {
				n.Codes[c.failed[i].Code]++
			}
		})
	}
	s.write(c)
	return nil
}

// judge sorts the events of a call into taken and failed. It returns how many are neither.
func (s *Server) judge(c *call, p *awstest.Plan, account string) (omitted int) {
	check := checker{account: account, eventSource: s.o.EventSource, emptyType: s.o.AllowEmptyType}
	c.taken, c.failed = c.taken[:0], c.failed[:0]
	now := s.o.Now()
	for i := range c.events {
		e := &c.events[i]
		taken := awstest.Event{ID: *e.ID, Received: now}
		if !s.o.Lean {
			data, _ := jsontext.AppendUnquote(nil, e.Data)
			f := check.check(data, &taken)
			if f == nil && e.Checksum != nil && !checksumMatches(data, *e.Checksum) {
				f = &failure{"InvalidChecksum", "eventDataChecksum is not the SHA-256 of eventData"}
			}
			if f != nil {
				c.failed = append(c.failed, failedEvent{*e.ID, f.code, f.message})
				continue
			}
			if !s.o.Digest {
				taken.Data = string(data)
			}
		}
		switch omit, code := p.Event(*e.ID); {
		case omit:
			omitted++
		case code != "":
			c.failed = append(c.failed, failedEvent{*e.ID, code, "fault on request"})
		default:
			c.taken = append(c.taken, taken)
		}
	}
	return omitted
}

// read reads the body. One that is too large is read to its end, within reason,
// so that the client sees the answer.
func (c *call) read(r *http.Request) *awstest.Error {
	c.body.Reset()
	if r.ContentLength > 0 && r.ContentLength <= MaxBody {
		c.body.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	n, err := c.body.ReadFrom(io.LimitReader(r.Body, MaxBody+1))
	switch {
	case err != nil:
		return awstest.Refuse("SerializationException", "the body could not be read")
	case n > MaxBody:
		_, _ = io.CopyN(io.Discard, r.Body, 32<<20) // the answer is the same whatever is left
		return &awstest.Error{Status: http.StatusRequestEntityTooLarge, Code: "ValidationException", Message: "the request is larger than 1 MB"}
	}
	return nil
}

// channel checks the query and returns the account that owns the channel.
func (s *Server) channel(q url.Values) (string, *awstest.Error) {
	arn := q.Get("channelArn")
	if arn == "" {
		return "", invalid("Value null at 'channelArn' failed to satisfy constraint: Member must not be null")
	}
	if _, _, ok := parseChannel(arn); !ok {
		return "", awstest.Refuse("InvalidChannelARN", "The specified channel ARN is not a valid channel ARN.")
	}
	account, ok := s.accounts[arn]
	if !ok {
		return "", awstest.Refuse("ChannelNotFound", "The channel could not be found.")
	}
	id := q.Get("externalId")
	if q.Has("externalId") && (len(id) < 2 || len(id) > 1224 || !each(id, externalIDByte)) {
		return "", invalid("Value at 'externalId' failed to satisfy constraint: Member must satisfy regular expression pattern")
	}
	if s.o.ExternalID != "" && id != s.o.ExternalID {
		return "", awstest.Refuse("ChannelInsufficientPermission", "The caller's account ID must be the same as the channel owner's account ID.")
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

var idPattern = regexp.MustCompile(`^[-_A-Za-z0-9]{1,128}$`)

// decode reads the body into events.
func (c *call) decode() *awstest.Error {
	var in struct {
		Events *[]auditEvent `json:"auditEvents"`
	}
	err := json.Unmarshal(c.body.Bytes(), &in, jsonOptions...)
	if err != nil || !utf8.Valid(c.body.Bytes()) {
		return awstest.Refuse("SerializationException", "the body is not a JSON object of the expected form")
	}
	if in.Events == nil {
		return invalid("Value null at 'auditEvents' failed to satisfy constraint: Member must not be null")
	}
	c.events = *in.Events
	switch n := len(c.events); {
	case n == 0:
		return invalid("Value at 'auditEvents' failed to satisfy constraint: Member must have length greater than or equal to 1")
	case n > MaxEvents:
		return invalid("Value at 'auditEvents' failed to satisfy constraint: Member must have length less than or equal to 100")
	}
	seen := make(map[string]struct{}, len(c.events))
	for _, e := range c.events {
		switch kind := e.Data.Kind(); {
		case kind == 'n', kind == 0:
			return invalid("Value null at 'auditEvents.member.eventData' failed to satisfy constraint: Member must not be null")
		case kind != '"':
			return awstest.Refuse("SerializationException", "eventData is not a string")
		case e.ID == nil || !idPattern.MatchString(*e.ID):
			return invalid("Value at 'auditEvents.member.id' failed to satisfy constraint: Member must have length between 1 and 128 " +
				"and satisfy regular expression pattern: ^[-_A-Za-z0-9]*$")
		}
		seen[*e.ID] = struct{}{}
	}
	if len(seen) < len(c.events) {
		return awstest.Refuse("DuplicatedAuditEventId", "Two or more entries in the request have the same event ID.")
	}
	return nil
}

// write makes the answer. Ids need no escaping: they match their pattern.
func (s *Server) write(c *call) {
	b := append(c.answer[:0], `{"successful":[`...)
	for i := range c.taken {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"id":"%s","eventID":"%s"}`, c.taken[i].ID, s.eventID(c.taken[i].Seq))
	}
	failed, err := json.Marshal(c.failed)
	if err != nil { // strings always encode
		panic(err)
	}
	c.answer = append(append(append(b, `],"failed":`...), failed...), '}')
}

// eventID makes a UUID of the server's random part and a Seq.
func (s *Server) eventID(seq int) string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", s.boot, seq)
}
