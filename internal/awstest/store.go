package awstest

import (
	"context"
	"hash/maphash"
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
	seed maphash.Seed

	mu      sync.Mutex
	events  []Event           // by Seq; empty if lean
	times   map[uint64]uint32 // hash of an ID → how often it is there
	counts  Counts
	changed chan struct{} // closed at the next change
}

// NewStore returns a store. A lean one keeps only how often each ID came, by a hash of it:
// some 30 bytes an ID.
func NewStore(lean bool) *Store {
	return &Store{lean: lean, seed: maphash.MakeSeed(), times: map[uint64]uint32{}, counts: Counts{Codes: map[string]int{}}, changed: make(chan struct{})}
}

// Take keeps the events of one call, and sets their Seq and Repeat.
func (s *Store) Take(events []Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range events {
		s.take(&events[i])
	}
	s.wake()
}

func (s *Store) take(e *Event) {
	h := maphash.String(s.seed, e.ID)
	e.Repeat = s.times[h] > 0
	s.times[h]++
	s.counts.Events++
	if e.Repeat {
		s.counts.Repeats++
	}
	e.Seq = s.counts.Events
	if !s.lean {
		s.events = append(s.events, *e)
	}
}

// wake tells those who wait that something has changed. The caller holds the lock.
func (s *Store) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// View calls f with what was taken, in order, removed events included. f must not keep it,
// nor call the store.
func (s *Store) View(f func(events []Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.events)
}

// since copies up to n events after a Seq. It returns the Seq to go on from, and a channel
// that is closed when there is more.
func (s *Store) since(after, n int) (list []Event, next int, more <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = max(after, 0)
	for ; next < len(s.events) && len(list) < n; next++ {
		if e := s.events[next]; !e.Removed {
			list = append(list, e)
		}
	}
	return list, next, s.changed
}

// Events returns what was taken, in order, repeats included. It is empty if lean.
func (s *Store) Events() []Event {
	events, _, _ := s.since(0, int(^uint(0)>>1))
	return events
}

// Watch calls f for each event whose Seq is greater than after, in order: 0 begins with the
// first one, Counts().Events with the next one. It returns when ctx ends. A slow f delays
// nobody else.
func (s *Store) Watch(ctx context.Context, after int, f func(Event)) {
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

// Times returns how often an ID is there.
func (s *Store) Times(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.times[maphash.String(s.seed, id)])
}

// Remove takes one event of an ID away, the latest, as if it had never come, and reports
// whether there was one.
func (s *Store) Remove(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := maphash.String(s.seed, id)
	if s.times[h] == 0 {
		return false
	}
	if s.times[h]--; s.times[h] == 0 {
		delete(s.times, h)
	}
	if e := s.latest(id); e != nil {
		e.Removed = true
	}
	s.wake()
	return true
}

// Double adds a copy of the latest event of an ID, as if it had come twice at that moment,
// and reports whether there was one.
func (s *Store) Double(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.latest(id)
	if e == nil {
		return false
	}
	twin := *e
	s.take(&twin)
	s.wake()
	return true
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
