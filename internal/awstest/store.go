package awstest

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Event is one that was taken.
type Event struct {
	Seq      int       // 1 for the first one taken; a repeat has its own
	ID       string    // by which repeats are told
	UID      string    // in the event
	Place    string    // eventSource, or the log stream
	Data     string    // eventData, or the message
	At       time.Time // eventTime, or the log event's timestamp
	Received time.Time
	Repeat   bool // an event of this ID had been taken before
	Removed  bool // by Remove: as if it had never come
}

// Counts are totals since the server was made.
type Counts struct {
	Calls     int // that put events and have been read, those that wait for their delay included
	Refused   int // of those, with an error
	Throttled int // calls beyond the quota
	Lost      int // connections dropped on purpose: resets, and answers lost
	Events    int // taken, repeats included
	Distinct  int // ids among them that are still there
	Repeats   int // events whose id had been taken before
	Failed    int // events refused inside an answer
	Omitted   int // events left out of an answer
	Reads     int // calls of FilterLogEvents
	// Codes counts every error code that was answered, for calls and events.
	Codes map[string]int
}

// Store keeps the events that a service has taken. It is safe for concurrent use.
type Store struct {
	lean bool

	mu     sync.Mutex
	events []Event        // by Seq; empty if lean
	times  map[string]int // how often an ID is there
	counts Counts
}

// NewStore returns a store. A lean one keeps only how often each ID came.
func NewStore(lean bool) *Store {
	return &Store{lean: lean, times: map[string]int{}, counts: Counts{Codes: map[string]int{}}}
}

// Take keeps the events of one call, and sets their Seq and Repeat.
func (s *Store) Take(events []Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range events {
		s.take(&events[i])
	}
}

func (s *Store) take(e *Event) {
	e.Repeat = s.times[e.ID] > 0
	s.times[e.ID]++
	s.counts.Events++
	if e.Repeat {
		s.counts.Repeats++
	}
	e.Seq = s.counts.Events
	if !s.lean {
		s.events = append(s.events, *e)
	}
}

// View calls f with what was taken, in order, removed events included. f must not keep it,
// nor call the store.
func (s *Store) View(f func(events []Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.events)
}

// Events returns what was taken, in order, repeats included. It is empty if lean.
func (s *Store) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.events), func(e Event) bool { return e.Removed })
}

// Times returns how often an ID is there.
func (s *Store) Times(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times[id]
}

// Remove takes one event of an ID away, the latest, as if it had never come, and reports
// whether there was one.
func (s *Store) Remove(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.times[id] == 0 {
		return false
	}
	if s.times[id]--; s.times[id] == 0 {
		delete(s.times, id)
	}
	if e := s.latest(id); e != nil {
		e.Removed = true
	}
	return true
}

// Double adds a copy of the latest event of an ID, as if it had come twice at that moment.
func (s *Store) Double(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.latest(id); e != nil {
		s.take(new(*e))
	}
}

// latest returns the latest event of an ID, or nil. The caller holds the lock.
func (s *Store) latest(id string) *Event {
	for i, e := range slices.Backward(s.events) {
		if e.ID == id && !e.Removed {
			return &s.events[i]
		}
	}
	return nil
}

// Counts returns the totals.
func (s *Store) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Distinct, c.Codes = len(s.times), maps.Clone(c.Codes)
	return c
}

// Count changes the totals.
func (s *Store) Count(f func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.counts)
}
