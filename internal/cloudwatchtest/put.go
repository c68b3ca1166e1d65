package cloudwatchtest

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
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

// incoming is one event of a call.
type incoming struct {
	message []byte
	at      int64 // milliseconds
	hasAt   bool
}

// rejected says which events of a call were left out. Events are in order of time.
type rejected struct {
	tooOld, expired int // events before this index
	tooNew          int // events from this index on
}

func (s *Server) putLogEvents(w http.ResponseWriter, r *http.Request, body []byte) {
	p := s.plan()
	wait(r, p.Delay)
	if p.Reset {
		s.count(func(c *Counts) { c.Lost++ })
		reset(w)
	}
	s.count(func(c *Counts) { c.Calls++ })
	answer, e := s.put(body, &p)
	switch {
	case e != nil:
		s.fail(w, "PutLogEvents", e)
	case p.LoseAnswer:
		s.count(func(c *Counts) { c.Lost++ })
		panic(http.ErrAbortHandler)
	case p.Garbage:
		_, _ = w.Write([]byte(`<html><h1>`)) // a client that has gone needs no answer
	default:
		write(w, http.StatusOK, answer)
	}
}

// put handles a call up to its answer.
func (s *Server) put(body []byte, p *plan) (any, *apiError) {
	if p.Code != "" {
		return nil, refuse(p.Code, "fault on request")
	}
	group, stream, events, e := decodeEvents(body)
	if e != nil {
		return nil, e
	}
	if e := s.group(group); e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.o.Streams, stream) {
		return nil, refuse("ResourceNotFoundException", "The specified log stream does not exist.")
	}
	for i := range events {
		if code := p.standing.IDs[uidIfNeeded(p, events[i].message)]; code != "" {
			return nil, refuse(code, "fault on request")
		}
	}
	rejection := rejected{tooNew: len(events)}
	if !s.o.Lean {
		if e := checkCall(events); e != nil {
			return nil, e
		}
		rejection = s.checkTimes(events)
	}
	first := max(rejection.tooOld, rejection.expired)
	if first < rejection.tooNew {
		s.add(stream, events[first:rejection.tooNew], p)
	}
	info := map[string]int{}
	if rejection.tooOld > 0 {
		info["tooOldLogEventEndIndex"] = rejection.tooOld
	}
	if rejection.expired > 0 {
		info["expiredLogEventEndIndex"] = rejection.expired
	}
	if rejection.tooNew < len(events) {
		info["tooNewLogEventStartIndex"] = rejection.tooNew
	}
	s.counts.Rejected += len(events) - max(rejection.tooNew-first, 0)
	if len(info) == 0 {
		return map[string]any{"nextSequenceToken": "ignored"}, nil
	}
	return map[string]any{"nextSequenceToken": "ignored", "rejectedLogEventsInfo": info}, nil
}

func uidIfNeeded(p *plan, message []byte) string {
	if len(p.standing.IDs) == 0 {
		return ""
	}
	return uidOf(message)
}

// checkCall holds a call against the limits that AWS answers with an error.
func checkCall(events []incoming) *apiError {
	size := 0
	for i := range events {
		e := &events[i]
		size += len(e.message) + EventOverhead
		switch {
		case len(e.message) == 0:
			return invalid(fmt.Sprintf("1 validation error detected: Value '' at 'logEvents.%d.member.message' failed to satisfy constraint: Member must have length greater than or equal to 1", i+1))
		case len(e.message) > MaxEvent:
			return invalid(fmt.Sprintf("Log event too large: %d bytes exceeds limit of %d", len(e.message), MaxEvent))
		case !e.hasAt || e.at < 0:
			return invalid("1 validation error detected: Value at 'logEvents.member.timestamp' failed to satisfy constraint: Member must have value greater than or equal to 0")
		case i > 0 && e.at < events[i-1].at:
			return invalid("Log events in a single PutLogEvents request must be in chronological order.")
		case !utf8.Valid(e.message):
			return refuse("SerializationException", "a message is not UTF-8")
		}
	}
	switch {
	case len(events) == 0:
		return invalid("1 validation error detected: Value '[]' at 'logEvents' failed to satisfy constraint: Member must have length greater than or equal to 1")
	case len(events) > MaxCallEvents:
		return invalid("1 validation error detected: Value at 'logEvents' failed to satisfy constraint: Member must have length less than or equal to 10000")
	case size > MaxCallBytes:
		return invalid(fmt.Sprintf("Upload too large: %d bytes exceeds limit of %d", size, MaxCallBytes))
	case events[len(events)-1].at-events[0].at > maxCallSpan.Milliseconds():
		return invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
	}
	return nil
}

// checkTimes says which events are refused for their time.
func (s *Server) checkTimes(events []incoming) rejected {
	now := s.o.Now().Add(s.faults.Clock)
	r := rejected{tooNew: len(events)}
	for i := range events {
		at := time.UnixMilli(events[i].at)
		switch {
		case at.Before(now.Add(-maxAge)):
			r.tooOld = i + 1
		case s.o.Retention > 0 && at.Before(now.Add(-time.Duration(s.o.Retention)*24*time.Hour)):
			r.expired = i + 1
		case at.After(now.Add(maxAhead)):
			r.tooNew = min(r.tooNew, i)
		}
	}
	return r
}

// add keeps events that were taken. The caller holds the lock.
func (s *Server) add(stream string, events []incoming, p *plan) {
	now := s.o.Now()
	for i := range events {
		times := 1
		switch { // nobody is told
		case p.dice != nil && p.hit(p.standing.Drop):
			s.counts.Dropped++
			continue
		case p.dice != nil && p.hit(p.standing.Double):
			times = 2
		}
		for range times {
			if s.store.add(stream, events[i].message, events[i].at, now) {
				s.counts.Repeats++
			}
			s.counts.Events++
		}
	}
	s.store.wake()
}

// decodeEvents reads the body of a call.
func decodeEvents(body []byte) (group, stream string, events []incoming, e *apiError) {
	malformed := refuse("SerializationException", "the body is not a JSON object of the expected form")
	d := jsontext.NewDecoder(bytes.NewBuffer(body))
	text := make([]byte, 0, len(body)) // decoded text is never longer than encoded text
	str := func() (string, error) {
		t, err := d.ReadToken()
		if err == nil && t.Kind() != '"' {
			err = fmt.Errorf("no string")
		}
		return t.String(), err
	}
	err := object(d, func(name string) (err error) {
		switch name {
		case "logGroupName":
			group, err = str()
		case "logStreamName":
			stream, err = str()
		case "logEvents":
			events, text, err = eventList(d, text)
		default:
			err = d.SkipValue()
		}
		return err
	})
	if err != nil {
		return "", "", nil, malformed
	}
	return group, stream, events, nil
}

func eventList(d *jsontext.Decoder, text []byte) (events []incoming, arena []byte, err error) {
	if t, err := d.ReadToken(); err != nil || t.Kind() != '[' {
		return nil, text, fmt.Errorf("no array: %w", err)
	}
	for d.PeekKind() != ']' {
		var in incoming
		err := object(d, func(name string) error {
			switch name {
			case "message":
				v, err := d.ReadValue()
				if err != nil || v.Kind() != '"' {
					return fmt.Errorf("no message: %w", err)
				}
				from := len(text)
				if text, err = jsontext.AppendUnquote(text, v); err != nil {
					return err
				}
				in.message = text[from:len(text):len(text)]
				return nil
			case "timestamp":
				t, err := d.ReadToken()
				if err != nil || t.Kind() != '0' {
					return fmt.Errorf("no number: %w", err)
				}
				in.hasAt = true
				in.at, err = t.Int()
				return err
			}
			return d.SkipValue()
		})
		if err != nil {
			return nil, text, err
		}
		events = append(events, in)
	}
	_, err = d.ReadToken()
	return events, text, err
}

// object reads an object. member is called with each name, and reads the value.
func object(d *jsontext.Decoder, member func(name string) error) error {
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return fmt.Errorf("no object: %w", err)
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		if err := member(name.String()); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}
