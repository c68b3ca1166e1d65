package cloudwatchtest

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

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
	Message string `json:"message"`
	At      *int64 `json:"timestamp"` // milliseconds
}

// rejected says which events of a call were left out. Events are in order of time.
type rejected struct {
	tooOld, expired int // events before this index
	tooNew          int // events from this index on
}

func (s *Server) putLogEvents(w http.ResponseWriter, r *http.Request, body []byte) {
	p := s.Plan()
	awstest.Wait(r, p.Delay)
	if p.Reset {
		s.Count(func(c *Counts) { c.Lost++ })
		awstest.Reset(w)
	}
	s.Count(func(c *Counts) { c.Calls++ })
	answer, e := s.put(body, &p)
	switch {
	case e != nil:
		s.fail(w, "PutLogEvents", e)
	case p.LoseAnswer:
		s.Count(func(c *Counts) { c.Lost++ })
		panic(http.ErrAbortHandler)
	case p.Garbage:
		_, _ = w.Write([]byte(`<html><h1>`)) // a client that has gone needs no answer
	default:
		protocol.Write(w, http.StatusOK, answer)
	}
}

// put handles a call up to its answer.
func (s *Server) put(body []byte, p *awstest.Plan) (any, *awstest.Error) {
	if p.Code != "" {
		return nil, refuse(p.Code, "fault on request")
	}
	var in incoming
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	if e := s.group(in.Group); e != nil {
		return nil, e
	}
	events := in.Events
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.o.Streams, in.Stream) {
		return nil, refuse("ResourceNotFoundException", "The specified log stream does not exist.")
	}
	for i := 0; len(p.Standing.IDs) > 0 && i < len(events); i++ {
		if code := p.Standing.IDs[uidOf([]byte(events[i].Message))]; code != "" {
			return nil, refuse(code, "fault on request")
		}
	}
	rejection := rejected{tooNew: len(events)}
	if !s.o.Lean {
		if e := checkCall(events); e != nil {
			return nil, e
		}
		rejection = s.checkTimes(events, s.o.Now().Add(p.Standing.Clock))
	}
	first := max(rejection.tooOld, rejection.expired)
	if first < rejection.tooNew {
		s.add(in.Stream, events[first:rejection.tooNew])
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
	s.Count(func(c *Counts) { c.Failed += len(events) - max(rejection.tooNew-first, 0) })
	if len(info) == 0 {
		return map[string]any{"nextSequenceToken": "ignored"}, nil
	}
	return map[string]any{"nextSequenceToken": "ignored", "rejectedLogEventsInfo": info}, nil
}

// checkCall holds a call against the limits that AWS answers with an error.
func checkCall(events []incomingEvent) *awstest.Error {
	size := 0
	for i := range events {
		e := &events[i]
		size += len(e.Message) + EventOverhead
		switch {
		case len(e.Message) == 0:
			return invalid(fmt.Sprintf("1 validation error detected: Value '' at 'logEvents.%d.member.message' failed to satisfy constraint: Member must have length greater than or equal to 1", i+1))
		case len(e.Message) > MaxEvent:
			return invalid(fmt.Sprintf("Log event too large: %d bytes exceeds limit of %d", len(e.Message), MaxEvent))
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

// checkTimes says which events are refused for their time.
func (s *Server) checkTimes(events []incomingEvent, now time.Time) rejected {
	r := rejected{tooNew: len(events)}
	for i := range events {
		at := time.UnixMilli(*events[i].At)
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
func (s *Server) add(stream string, events []incomingEvent) {
	taken := make([]Event, len(events))
	now := s.o.Now()
	for i := range events {
		message := events[i].Message
		if s.o.Lean {
			taken[i].ID = leanUID(message)
			continue
		}
		id := identify([]byte(message))
		uid := cmp.Or(id.UID, id.Metadata.UID)
		if s.o.Digest && id.UID != "" {
			message = fmt.Sprintf(`{"UID":%q,"eventTime":%q}`, id.UID, id.EventTime)
		}
		taken[i] = Event{ID: uid, UID: uid, Place: stream, Data: message, At: time.UnixMilli(*events[i].At), Received: now}
	}
	s.Take(taken)
}

// uidFields begin a UID in the events that the relay writes, of either format.
var uidFields = []string{`"UID":"`, `"metadata":{"uid":"`}

// leanUID finds a UID without decoding its event.
func leanUID(message string) string {
	for _, field := range uidFields {
		if _, rest, ok := strings.Cut(message, field); ok {
			uid, _, _ := strings.Cut(rest, `"`)
			return uid
		}
	}
	return ""
}
