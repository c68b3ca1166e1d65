package cloudtrailtest

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

// auditEvent is one event of a request. A member that is null counts as missing.
type auditEvent struct {
	ID       *string        `json:"id"`
	Data     jsontext.Value `json:"eventData"` // of a JSON string
	Checksum *string        `json:"eventDataChecksum"`
}

func (s *Server) putAuditEvents(w http.ResponseWriter, r *http.Request) {
	body, done, refused := s.read(r, "cloudtrail-data")
	defer done()
	if refused == nil && s.quota.Exceeded(s.o.Now()) {
		refused = awstest.Throttled
	}
	s.Put(w, r, dataProtocol, func(p *awstest.Plan) ([]byte, *awstest.Error) {
		if refused != nil {
			return nil, refused
		}
		if e := s.channel(r.URL.Query()); e != nil {
			return nil, e
		}
		events, e := decode(body)
		if e != nil {
			return nil, e
		}
		return s.judge(events, p), nil
	})
}

// read reads the body of a request, and checks its signature. The caller calls done when it no
// longer needs the body.
func (s *Server) read(r *http.Request, service string) (body []byte, done func(), e *awstest.Error) {
	body, done, e = awstest.ReadBody(r, MaxBody)
	if e == nil && !s.o.Unsigned {
		e = s.verify(r, body, service)
	}
	return body, done, e
}

// noData is eventData without a member. The relay's check puts it to see it refused, so Lean refuses
// it as well.
const noData = `"{}"`

// judge stores the valid events of a call, and returns the answer.
func (s *Server) judge(events []auditEvent, p *awstest.Plan) []byte {
	taken, failed := make([]awstest.Event, 0, len(events)), []failure{}
	now, omitted := s.o.Now(), 0
	for _, e := range events {
		event := awstest.Event{ID: *e.ID, Received: now}
		var f *failure
		if !s.o.Lean || string(e.Data) == noData {
			data, _ := jsontext.AppendUnquote(nil, e.Data)
			f = s.check(data, &event)
			if f == nil && e.Checksum != nil && !checksumMatches(data, *e.Checksum) {
				f = refuse("InvalidChecksum", "eventDataChecksum is not the SHA-256 of eventData")
			}
			if !s.o.Digest {
				event.Data = string(data)
			}
		}
		if f == nil {
			omit, code := p.Event(*e.ID)
			if omit {
				omitted++
				continue
			}
			if code != "" {
				f = refuse(code, "fault on request")
			}
		}
		if f == nil {
			taken = append(taken, event)
			continue
		}
		f.ID = *e.ID
		failed = append(failed, *f)
	}
	s.Take(taken)
	s.Count(func(n *awstest.Counts) {
		n.Omitted += omitted
		n.Failed += len(failed)
		for i := range failed {
			n.Codes[failed[i].Code]++
		}
	})
	return s.answer(taken, failed)
}

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

// maxExternalID is the greatest length of an external id, in bytes. Go's regular expressions cannot
// count that far.
const maxExternalID = 1224

func decode(body []byte) ([]auditEvent, *awstest.Error) {
	var in struct {
		Events *[]auditEvent `json:"auditEvents"`
	}
	err := json.Unmarshal(body, &in, jsonOptions...)
	if err != nil || !utf8.Valid(body) {
		return nil, awstest.Refuse("SerializationException", "the body is not a JSON object of the expected form")
	}
	if in.Events == nil {
		return nil, invalid("Value null at 'auditEvents' failed to satisfy constraint: Member must not be null")
	}
	events := *in.Events
	switch n := len(events); {
	case n == 0:
		return nil, invalid("Value at 'auditEvents' failed to satisfy constraint: Member must have length greater than or equal to 1")
	case n > MaxEvents:
		return nil, invalid("Value at 'auditEvents' failed to satisfy constraint: Member must have length less than or equal to 100")
	}
	seen := make(map[string]struct{}, len(events))
	for _, e := range events {
		switch kind := e.Data.Kind(); {
		case kind == 'n', kind == 0:
			return nil, invalid("Value null at 'auditEvents.member.eventData' failed to satisfy constraint: Member must not be null")
		case kind != '"':
			return nil, awstest.Refuse("SerializationException", "eventData is not a string")
		case e.ID == nil || !idPattern.MatchString(*e.ID):
			return nil, invalid("Value at 'auditEvents.member.id' failed to satisfy constraint: Member must have length between 1 and 128 " +
				"and satisfy regular expression pattern: ^[-_A-Za-z0-9]*$")
		}
		seen[*e.ID] = struct{}{}
	}
	if len(seen) < len(events) {
		return nil, awstest.Refuse("DuplicatedAuditEventId", "Two or more entries in the request have the same event ID.")
	}
	return events, nil
}

// answer returns the answer to a call. Ids need no escaping, as they match their pattern.
func (s *Server) answer(taken []awstest.Event, failed []failure) []byte {
	b := []byte(`{"successful":[`)
	for i := range taken {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"id":"%s","eventID":"%s"}`, taken[i].ID, s.eventID(taken[i].Seq))
	}
	refused, err := json.Marshal(failed)
	if err != nil { // strings always encode
		panic(err)
	}
	return fmt.Appendf(b, `],"failed":%s}`, refused)
}

// eventID returns a UUID made of the server's random part and a Seq.
func (s *Server) eventID(seq int) string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", s.boot, seq)
}
