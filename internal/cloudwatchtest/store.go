package cloudwatchtest

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
)

// Event is one that was taken.
type Event struct {
	Seq      int // 1 for the first one taken; a repeat has its own
	Stream   string
	UID      string
	Message  string
	Filed    int64 // milliseconds: the time that it came with
	Ingested time.Time
	Repeat   bool // the UID had been taken before

	removed bool
}

// Counts are totals since the server was made.
type Counts struct {
	Calls     int // of PutLogEvents that were read whole
	Refused   int // of those, with an error
	Lost      int // connections dropped on purpose: resets, and answers lost
	Events    int // taken, repeats included
	Distinct  int // UIDs among them that are still there
	Repeats   int // events whose UID had been taken before
	Rejected  int // events left out for their time
	Dropped   int // events taken and lost on purpose
	Reads     int // calls of FilterLogEvents
	Throttled int // of those, by the quota
	// Codes counts every error code that was answered.
	Codes map[string]int
}

// store keeps events. The server's lock guards it.
type store struct {
	lean, digest bool
	seed         maphash.Seed
	events       []Event           // by Seq
	times        map[uint64]uint32 // hash of a UID → how often it is there
	changed      chan struct{}     // closed at the next change
}

func newStore(lean, digest bool) store {
	return store{lean: lean, digest: digest, seed: maphash.MakeSeed(), times: map[uint64]uint32{}, changed: make(chan struct{})}
}

// uidFields begin a UID in the events that the relay writes, of either format.
var uidFields = [][]byte{[]byte(`"UID":"`), []byte(`"metadata":{"uid":"`)}

// add keeps an event, and reports whether one of its UID had been taken before.
func (t *store) add(stream string, message []byte, at int64, now time.Time) (repeat bool) {
	if t.lean {
		var uid []byte
		for _, field := range uidFields {
			if _, rest, ok := bytes.Cut(message, field); ok {
				uid, _, _ = bytes.Cut(rest, []byte{'"'})
				break
			}
		}
		return t.seen(maphash.Bytes(t.seed, uid))
	}
	e := Event{Seq: len(t.events) + 1, Stream: stream, UID: uidOf(message), Filed: at, Ingested: now}
	if t.digest {
		e.Message = digestOf(message)
	} else {
		e.Message = string(message)
	}
	e.Repeat = t.seen(maphash.String(t.seed, e.UID))
	t.events = append(t.events, e)
	return e.Repeat
}

// seen counts a UID, and reports whether it is there already.
func (t *store) seen(hash uint64) bool {
	n := t.times[hash]
	t.times[hash] = n + 1
	return n > 0
}

// digestOf leaves of an event what identifies it.
func digestOf(message []byte) string {
	var m struct{ UID, EventTime string }
	if json.Unmarshal(message, &m, json.MatchCaseInsensitiveNames(true)) != nil || m.UID == "" {
		return string(message)
	}
	return fmt.Sprintf(`{"UID":%q,"eventTime":%q}`, m.UID, m.EventTime)
}

func (t *store) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// since copies up to n events after a Seq. It returns the Seq to go on from, and a
// channel that is closed when there is more.
func (s *Server) since(after, n int) ([]Event, int, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Event
	i := max(after, 0)
	for ; i < len(s.store.events) && len(out) < n; i++ {
		if e := s.store.events[i]; !e.removed {
			out = append(out, e)
		}
	}
	return out, i, s.store.changed
}

// latest copies the last n events after a Seq, newest first. It returns the Seq to go
// on from.
func (s *Server) latest(after, n int) ([]Event, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Event
	for i := len(s.store.events) - 1; i >= max(after, 0) && len(out) < n; i-- {
		if !s.store.events[i].removed {
			out = append(out, s.store.events[i])
		}
	}
	return out, len(s.store.events)
}

// Events returns what was taken, in order, repeats included. It is empty with Lean.
func (s *Server) Events() []Event {
	events, _, _ := s.since(0, int(^uint(0)>>1))
	return events
}

// Watch calls f for each event whose Seq is greater than after, in order. It returns
// when ctx ends. A slow f delays nobody else.
func (s *Server) Watch(ctx context.Context, after int, f func(Event)) {
	for {
		events, next, more := s.since(after, 1000)
		for _, e := range events {
			if ctx.Err() != nil {
				return
			}
			f(e)
		}
		if next > after {
			after = next
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}

// Times returns how often a UID is there.
func (s *Server) Times(uid string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.store.times[maphash.String(s.store.seed, uid)])
}

// Remove takes one event of a UID away, the latest, as if it had never come, and
// reports whether there was one.
func (s *Server) Remove(uid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.store
	for i, e := range slices.Backward(t.events) {
		if e.UID != uid || e.removed {
			continue
		}
		t.events[i].removed = true
		h := maphash.String(t.seed, uid)
		if t.times[h]--; t.times[h] == 0 {
			delete(t.times, h)
		}
		t.wake()
		return true
	}
	return false
}

// Double adds a copy of the latest event of a UID, as if it had come twice at that
// moment, and reports whether there was one.
func (s *Server) Double(uid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.store
	for _, e := range slices.Backward(t.events) {
		if e.UID == uid && !e.removed {
			t.add(e.Stream, []byte(e.Message), e.Filed, e.Ingested)
			s.counts.Events++
			s.counts.Repeats++
			t.wake()
			return true
		}
	}
	return false
}

// Counts returns the totals.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Distinct, c.Codes = len(s.store.times), maps.Clone(c.Codes)
	return c
}

// count changes the totals.
func (s *Server) count(f func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.counts)
}
