package cloudwatchtest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

const (
	maxPageBytes  = 1_000_000 // messages in a page of FilterLogEvents
	maxPageEvents = 10_000
	// maxSearched is how many events a call looks through: where few of them match,
	// pages are small or empty, and still not the last.
	maxSearched = 20_000
)

type filtered struct {
	EventID   string `json:"eventId"`
	Ingested  int64  `json:"ingestionTime"`
	Stream    string `json:"logStreamName"`
	Message   string `json:"message"`
	Timestamp int64  `json:"timestamp"`
}

// filter is the request of FilterLogEvents.
type filter struct {
	Group   string   `json:"logGroupName"`
	Streams []string `json:"logStreamNames"`
	Start   *int64   `json:"startTime"`
	End     *int64   `json:"endTime"` // included
	Limit   *int     `json:"limit"`
	Token   string   `json:"nextToken"`
}

func (f *filter) matches(e *awstest.Event) bool {
	at := e.At.UnixMilli()
	return (len(f.Streams) == 0 || slices.Contains(f.Streams, e.Place)) && (f.Start == nil || at >= *f.Start) && (f.End == nil || at <= *f.End)
}

// place returns how many events a page may have, and where it begins.
func (f *filter) place() (limit, from int, e *awstest.Error) {
	limit = maxPageEvents
	if f.Limit != nil {
		limit = *f.Limit
	}
	if limit < 1 || limit > maxPageEvents {
		return 0, 0, invalid("1 validation error detected: Value at 'limit' failed to satisfy constraint: Member must have value between 1 and 10000")
	}
	if f.Token == "" {
		return limit, 0, nil
	}
	place, _, _ := strings.Cut(f.Token, ".")
	from, err := strconv.Atoi(place)
	if err != nil || from < 0 {
		return 0, 0, invalid("The specified nextToken is invalid.")
	}
	return limit, from, nil
}

// filterLogEvents answers in the order in which events were taken, which is none
// that a caller can rely on.
func (s *Server) filterLogEvents(body []byte) (any, *awstest.Error) {
	var in filter
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	s.Count(func(c *awstest.Counts) { c.Reads++ })
	if s.reads.Exceeded(s.o.Now()) {
		return nil, awstest.Throttled
	}
	code, empty := s.Read()
	if code != "" {
		return nil, awstest.Refuse(code, "fault on request")
	}
	limit, from, e := in.place()
	if e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.group(in.Group, in.Streams...); e != nil {
		return nil, e
	}
	page, next, held := []filtered{}, from, 0
	s.View(func(events []awstest.Event) {
		if held = len(events); !empty {
			page, next = s.search(events, from, limit, in.matches)
		}
	})
	answer := map[string]any{"events": page, "searchedLogStreams": []any{}}
	if next < held || empty {
		answer["nextToken"] = fmt.Sprintf("%d.%d", next, s.Counts().Reads) // no two are alike
	}
	return answer, nil
}

// search returns a page of events from a place on, and where the next one begins.
func (s *Server) search(events []awstest.Event, from, limit int, match func(*awstest.Event) bool) (page []filtered, next int) {
	page = []filtered{}
	size, now := 0, s.o.Now()
	for next = from; next < len(events) && next < from+maxSearched && len(page) < limit; next++ {
		e := &events[next]
		if e.Removed || now.Sub(e.Received) < s.o.VisibleAfter || !match(e) {
			continue
		}
		if size += len(e.Data); size > maxPageBytes && len(page) > 0 {
			break
		}
		page = append(page, filtered{strconv.Itoa(e.Seq), e.Received.UnixMilli(), e.Place, e.Data, e.At.UnixMilli()})
	}
	return page, next
}
