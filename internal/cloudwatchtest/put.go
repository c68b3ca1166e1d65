package cloudwatchtest

import (
	"bytes"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

// Limits of PutLogEvents, from AWS's documentation.
const (
	MaxCallBytes  = 1_048_576      // messages in UTF-8, and EventOverhead for each
	MaxCallEvents = 10_000         // events in a call
	EventOverhead = 26             // bytes on top of each message
	MaxEvent      = 1_000_000      // bytes of a message: the smaller reading of 1 MB
	maxCallSpan   = 24 * time.Hour // from the first event of a call to its last
	maxAge        = 14 * 24 * time.Hour
	maxAhead      = 2 * time.Hour
)

// incoming is a call. A member that is null is one that is missing.
type incoming struct {
	Group  string          `json:"logGroupName"`
	Stream string          `json:"logStreamName"`
	Events []incomingEvent `json:"logEvents"`
}

type incomingEvent struct {
	Raw jsontext.Value `json:"message"`   // a JSON string
	At  *int64         `json:"timestamp"` // milliseconds

	// What Raw says; empty if lean.
	message string
	id      identity
}

// read reads the message. One that is null is missing.
func (e *incomingEvent) read() error {
	if len(e.Raw) == 0 || e.Raw.Kind() == jsontext.KindNull {
		return nil
	}
	text, err := jsontext.AppendUnquote(nil, e.Raw)
	e.message, e.id = string(text), identify(text)
	return err
}

// putLogEvents handles a call up to its answer.
func (s *Server) putLogEvents(body []byte, p *awstest.Plan) ([]byte, *awstest.Error) {
	var in incoming
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	for i := range in.Events {
		if !s.o.Lean && in.Events[i].read() != nil {
			return nil, errForm
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.group(in.Group, in.Stream); e != nil {
		return nil, e
	}
	answer := map[string]any{"nextSequenceToken": "ignored"}
	taken := in.Events
	if !s.o.Lean {
		for i := range in.Events {
			if code := p.IDs[in.Events[i].id.uid()]; code != "" {
				return nil, awstest.Refuse(code, "fault on request")
			}
		}
		if e := checkCall(in.Events); e != nil {
			return nil, e
		}
		var rejected map[string]int
		if taken, rejected = s.inTime(in.Events, s.o.Now().Add(p.Clock)); len(rejected) > 0 {
			answer["rejectedLogEventsInfo"] = rejected
		}
	}
	s.add(in.Stream, taken)
	s.Count(func(c *awstest.Counts) { c.Failed += len(in.Events) - len(taken) })
	text, err := json.Marshal(answer)
	if err != nil {
		panic(err) // maps and numbers always encode
	}
	return text, nil
}

// checkCall holds a call against the limits that AWS answers with an error.
func checkCall(events []incomingEvent) *awstest.Error {
	size := 0
	for i := range events {
		e := &events[i]
		size += len(e.message) + EventOverhead
		switch {
		case len(e.message) == 0:
			return invalid(fmt.Sprintf("1 validation error detected: Value '' at 'logEvents.%d.member.message' failed to satisfy constraint: Member must have length greater than or equal to 1", i+1))
		case len(e.message) > MaxEvent:
			return invalid(fmt.Sprintf("Log event too large: %d bytes exceeds limit of %d", len(e.message), MaxEvent))
		case e.At == nil || *e.At < 0:
			return invalid("1 validation error detected: Value at 'logEvents.member.timestamp' failed to satisfy constraint: Member must have value greater than or equal to 0")
		case i > 0 && *e.At < *events[i-1].At:
			return invalid("Log events in a single PutLogEvents request must be in chronological order.")
		}
	}
	switch {
	case len(events) == 0:
		return invalid("1 validation error detected: Value '[]' at 'logEvents' failed to satisfy constraint: Member must have length greater than or equal to 1")
	case len(events) > MaxCallEvents:
		return invalid("1 validation error detected: Value at 'logEvents' failed to satisfy constraint: Member must have length less than or equal to 10000")
	case size > MaxCallBytes:
		return invalid(fmt.Sprintf("Upload too large: %d bytes exceeds limit of %d", size, MaxCallBytes))
	case *events[len(events)-1].At-*events[0].At > maxCallSpan.Milliseconds():
		return invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
	}
	return nil
}

// inTime returns the events that are not refused for their time, and where the others end and begin.
// Events are in order of time.
func (s *Server) inTime(events []incomingEvent, now time.Time) (taken []incomingEvent, rejected map[string]int) {
	first, end := 0, len(events)
	rejected = map[string]int{}
	for i := range events {
		at := time.UnixMilli(*events[i].At)
		switch {
		case at.Before(now.Add(-maxAge)):
			first = i + 1
			rejected["tooOldLogEventEndIndex"] = first
		case s.o.Retention > 0 && at.Before(now.Add(-time.Duration(s.o.Retention)*24*time.Hour)):
			first = i + 1
			rejected["expiredLogEventEndIndex"] = first
		case at.After(now.Add(maxAhead)) && end == len(events):
			end = i
			rejected["tooNewLogEventStartIndex"] = end
		}
	}
	return events[first:end], rejected
}

// add keeps events that were taken. The caller holds the lock.
func (s *Server) add(stream string, events []incomingEvent) {
	taken := make([]awstest.Event, len(events))
	now := s.o.Now()
	for i := range events {
		e := &events[i]
		if s.o.Lean {
			taken[i].ID = leanUID(e.Raw)
			continue
		}
		uid, message := e.id.uid(), e.message
		if s.o.Digest && e.id.UID != "" {
			message = fmt.Sprintf(`{"UID":%q,"eventTime":%q}`, e.id.UID, e.id.EventTime)
		}
		taken[i] = awstest.Event{ID: uid, UID: uid, Place: stream, Data: message, At: time.UnixMilli(*e.At), Received: now}
	}
	s.Take(taken)
}

// uidFields begin a UID in the events that the relay writes, of either format.
var uidFields = []string{`\"UID\":\"`, `\"metadata\":{\"uid\":\"`}

// leanUID finds a UID without decoding the message that holds it.
func leanUID(message []byte) string {
	for _, field := range uidFields {
		if _, rest, ok := bytes.Cut(message, []byte(field)); ok {
			uid, _, _ := bytes.Cut(rest, []byte{'\\'})
			return string(uid)
		}
	}
	return ""
}
