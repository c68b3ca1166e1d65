package cloudtrailtest

import (
	"context"
	"crypto/sha256"
	"hash/maphash"
	"maps"
	"strings"
	"sync"
	"time"
)

// Keep says how much is remembered of accepted events.
type Keep int

// Ways to keep events, from most to least memory.
const (
	KeepEvents  Keep = iota // eventData as it came
	KeepDigests             // id, UID, time, source, and the SHA-256 of eventData
	KeepCounts              // how often each id was accepted, by a 64-bit hash of it: some 30 bytes an id
)

// Event is one that was accepted.
type Event struct {
	Seq      int    // 1 for the first one accepted; a repeat has its own
	ID       string // as the client gave it
	EventID  string // as the answer gave it: a UUID
	Data     string // eventData; empty unless it is kept
	SHA256   [sha256.Size]byte
	UID      string
	Source   string    // eventSource
	Time     time.Time // eventTime
	Received time.Time
	Repeat   bool // the id had been accepted before
}

// Counts are totals since the server was made.
type Counts struct {
	Calls     int // of PutAuditEvents that were read whole
	Refused   int // calls that got an error
	Throttled int // of those, by the quota
	Lost      int // connections dropped on purpose: resets, and answers lost
	Events    int // accepted, repeats included
	Distinct  int // ids among them that are still there
	Repeats   int // events whose id had been accepted before
	Failed    int // events refused inside an answer
	Omitted   int // events left out of an answer
	// Codes counts every error code that was answered, for calls and events.
	Codes map[string]int
}

// row is an accepted event, without what can be told from its place.
type row struct {
	id, data string
	columns
	received int64 // nanoseconds
	repeat   bool
	removed  bool
}

type store struct {
	keep Keep
	boot uint32 // makes the event ids of two servers differ
	seed maphash.Seed

	mu      sync.Mutex
	rows    []row               // by Seq; empty with KeepCounts
	sums    [][sha256.Size]byte // beside rows with KeepDigests
	times   map[uint64]uint32   // hash of an id → how often it is there
	sources map[string]string   // one copy of each eventSource
	total   int
	counts  Counts
	changed chan struct{} // closed at the next change
}

func newStore(keep Keep, boot uint32) *store {
	return &store{
		keep: keep, boot: boot, seed: maphash.MakeSeed(),
		times: map[uint64]uint32{}, sources: map[string]string{},
		counts: Counts{Codes: map[string]int{}}, changed: make(chan struct{}),
	}
}

// accepted is one event on its way into the store.
type accepted struct {
	id   string
	data []byte // valid during the call only
	columns
	eventID string // set by add
}

// add stores the events of one call and gives them their event ids.
func (t *store) add(events []accepted, now time.Time) {
	if len(events) == 0 {
		return
	}
	var arena string // one allocation holds the text of the whole call
	var sums [][sha256.Size]byte
	switch t.keep {
	case KeepEvents:
		n := 0
		for i := range events {
			n += len(events[i].data)
		}
		var b strings.Builder
		b.Grow(n)
		for i := range events {
			b.Write(events[i].data)
		}
		arena = b.String()
	case KeepDigests:
		sums = make([][sha256.Size]byte, len(events))
		for i := range events {
			sums[i] = sha256.Sum256(events[i].data)
		}
	case KeepCounts:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range events {
		e := &events[i]
		h := maphash.String(t.seed, e.id)
		n := t.times[h]
		t.times[h] = n + 1
		t.total++
		t.counts.Events++
		if n > 0 {
			t.counts.Repeats++
		}
		e.eventID = t.eventID(t.total)
		if t.keep == KeepCounts {
			continue
		}
		r := row{id: e.id, columns: e.columns, received: now.UnixNano(), repeat: n > 0}
		if r.uid == r.id {
			r.uid = r.id // one copy
		}
		r.source = t.sources[e.source]
		if r.source == "" {
			r.source = e.source
			t.sources[e.source] = e.source
		}
		if t.keep == KeepEvents {
			r.data, arena = arena[:len(e.data)], arena[len(e.data):]
		}
		t.rows = append(t.rows, r)
	}
	t.sums = append(t.sums, sums...)
	t.wake()
}

func (t *store) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// eventID makes a UUID of the server's random part and a Seq.
func (t *store) eventID(seq int) string {
	const digits = "0123456789abcdef"
	b := []byte("00000000-0000-4000-8000-000000000000")
	for i, v := 7, t.boot; i >= 0; i, v = i-1, v>>4 {
		b[i] = digits[v&15]
	}
	for i, v := len(b)-1, seq; i > 23; i, v = i-1, v>>4 {
		b[i] = digits[v&15]
	}
	return string(b)
}

// count changes the counters.
func (t *store) count(f func(*Counts)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.counts)
}

// event builds the event of a row. The caller holds the lock.
func (t *store) event(i int) Event {
	r := &t.rows[i]
	e := Event{
		Seq: i + 1, ID: r.id, EventID: t.eventID(i + 1), Data: r.data, UID: r.uid, Source: r.source,
		Time: time.Unix(r.time, 0).UTC(), Received: time.Unix(0, r.received).UTC(), Repeat: r.repeat,
	}
	if t.keep == KeepDigests {
		e.SHA256 = t.sums[i]
	}
	return e
}

func withSum(e Event) Event {
	if e.Data != "" {
		e.SHA256 = sha256.Sum256([]byte(e.Data))
	}
	return e
}

// batch copies up to n events after a Seq. It returns the Seq to go on from,
// and a channel that is closed when there is more.
func (t *store) batch(after, n int) ([]Event, int, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Event
	i := max(after, 0)
	for ; i < len(t.rows) && len(out) < n; i++ {
		if !t.rows[i].removed {
			out = append(out, t.event(i))
		}
	}
	return out, i, t.changed
}

// Events returns what was accepted, in order, repeats included. It is empty
// with KeepCounts.
func (s *Server) Events() []Event {
	events, _, _ := s.store.batch(0, int(^uint(0)>>1))
	for i := range events {
		events[i] = withSum(events[i])
	}
	return events
}

// Times returns how often an id has been accepted (and not removed).
func (s *Server) Times(id string) int {
	t := s.store
	t.mu.Lock()
	defer t.mu.Unlock()
	return int(t.times[maphash.String(t.seed, id)])
}

// Remove takes one accepted event with this id away, the latest, as if it had
// never come, and reports whether there was one. Tests of verification use it.
func (s *Server) Remove(id string) bool {
	t := s.store
	t.mu.Lock()
	defer t.mu.Unlock()
	h := maphash.String(t.seed, id)
	if t.times[h] == 0 {
		return false
	}
	if t.times[h]--; t.times[h] == 0 {
		delete(t.times, h)
	}
	for i := len(t.rows) - 1; i >= 0; i-- {
		if r := &t.rows[i]; r.id == id && !r.removed {
			r.removed = true
			break
		}
	}
	t.wake()
	return true
}

// Counts returns the totals.
func (s *Server) Counts() Counts {
	t := s.store
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.counts
	c.Distinct = len(t.times)
	c.Codes = maps.Clone(c.Codes)
	return c
}

// Watch calls f for each accepted event whose Seq is greater than after, in
// order: 0 begins with the first one, Counts().Events with the next one. It
// returns when ctx ends. A slow f delays nobody else. With KeepCounts there is
// nothing to watch.
func (s *Server) Watch(ctx context.Context, after int, f func(Event)) {
	for {
		events, next, more := s.store.batch(after, 1000)
		for _, e := range events {
			if ctx.Err() != nil {
				return
			}
			f(withSum(e))
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
