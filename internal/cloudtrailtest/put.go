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
	c, ok := s.calls.Get().(*call)
	if !ok {
		c = &call{}
	}
	defer s.calls.Put(c)
	refused := s.admit(r, c)
	s.Put(w, r, dataProtocol, func(p *awstest.Plan) ([]byte, *awstest.Error) {
		if refused != nil {
			return nil, refused
		}
		e := s.put(r.URL.Query(), p, c)
		return c.answer, e
	})
}

// admit reads a call, and checks who makes it and that it is within the quota.
func (s *Server) admit(r *http.Request, c *call) *awstest.Error {
	if e := c.read(r); e != nil {
		return e
	}
	if !s.o.Unsigned {
		if e := s.verify(r, c.body.Bytes(), "cloudtrail-data"); e != nil {
			return e
		}
	}
	if s.quota.Exceeded(s.o.Now()) {
		return awstest.Throttled
	}
	return nil
}

// put handles a call up to its answer.
func (s *Server) put(query url.Values, p *awstest.Plan, c *call) *awstest.Error {
	if e := s.channel(query); e != nil {
		return e
	}
	if e := c.decode(); e != nil {
		return e
	}
	omitted := s.judge(c, p)
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
func (s *Server) judge(c *call, p *awstest.Plan) (omitted int) {
	check := checker{eventSource: s.o.EventSource}
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

// channel checks the query.
func (s *Server) channel(q url.Values) *awstest.Error {
	switch arn := q.Get("channelArn"); {
	case arn == "":
		return invalid("Value null at 'channelArn' failed to satisfy constraint: Member must not be null")
	case !channelPattern.MatchString(arn):
		return awstest.Refuse("InvalidChannelARN", "The specified channel ARN is not a valid channel ARN.")
	case arn != ChannelARN:
		return awstest.Refuse("ChannelNotFound", "The channel could not be found.")
	}
	id := q.Get("externalId")
	if q.Has("externalId") && (len(id) > maxExternalID || !externalIDPattern.MatchString(id)) {
		return invalid("Value at 'externalId' failed to satisfy constraint: Member must satisfy regular expression pattern")
	}
	if s.o.ExternalID != "" && id != s.o.ExternalID {
		return awstest.Refuse("ChannelInsufficientPermission", "The caller's account ID must be the same as the channel owner's account ID.")
	}
	return nil
}

var (
	channelPattern    = regexp.MustCompile(`^arn:aws[^:]*:cloudtrail:[^:]+:[0-9]{12}:channel/[A-Za-z0-9-]{1,128}$`)
	externalIDPattern = regexp.MustCompile(`^[A-Za-z0-9_+=,.@:/-]{2,}$`)
	idPattern         = regexp.MustCompile(`^[-_A-Za-z0-9]{1,128}$`)
)

// maxExternalID is the length of an external id, in bytes. It is more than a pattern can count.
const maxExternalID = 1224

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
