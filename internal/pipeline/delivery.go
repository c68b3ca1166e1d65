package pipeline

import (
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// delivery is what everything that is put in one pass shares: which entries are in
// flight, how far those that were read in order have an outcome, and the gates of
// destination and ledger.
type delivery struct {
	p     *Pipeline
	valid func() error // returns an error once the lease is not held
	keep  func(e *audit.Entry) time.Duration
	gate  *gate

	mu        sync.Mutex
	flight    map[string]bool // ids from being looked up until they are recorded
	slots     []*slot         // of batches, in reading order, from the first one that is not complete
	completed int             // slots that are complete and gone from slots
	oldest    int64           // least timestamp in those that are not complete; 0 if all are
	through   int64           // timestamp up to which the log has been read, in order
	pages     []pageEnd       // ends of pages that are not complete, in orders other than oldest first
	offset    string          // token after the last page that is
	outage    chan struct{}   // closed once a ledger that does not answer records again; nil while it does
	sum       Summary
}

func newDelivery(p *Pipeline, valid func() error, keep func(e *audit.Entry) time.Duration) *delivery {
	return &delivery{p: p, valid: valid, keep: keep, gate: newGate(), flight: map[string]bool{}}
}

// slot is a batch's place in reading order.
type slot struct {
	first  int64 // timestamp of its first entry
	oldest int64 // least timestamp in it, once the batch is whole; negative if it is reserved for batches to come
	left   int   // entries that have no outcome, once the batch is whole
	weight int   // bytes that they count towards those in flight
	done   bool
}

// pageEnd is a page's end: everything up to it has an outcome once so many slots
// are complete.
type pageEnd struct {
	offset string
	slots  int
}

// takeIntoFlight marks a page's entries as in flight, and returns those that were not.
func (d *delivery) takeIntoFlight(entries []audit.Entry) []audit.Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept, copied := entries, false
	for i := range entries {
		had := len(d.flight)
		d.flight[entries[i].ID] = true
		switch fresh := len(d.flight) > had; {
		case !fresh && !copied:
			kept, copied = append(make([]audit.Entry, 0, len(entries)), entries[:i]...), true
		case fresh && copied:
			kept = append(kept, entries[i])
		}
	}
	return kept
}

// dropKnown takes those of a page's entries out of flight that have an outcome already.
func (d *delivery) dropKnown(entries []audit.Entry, outcomes []audit.Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range entries {
		if outcomes[i] != audit.New {
			delete(d.flight, entries[i].ID)
		}
	}
}

// keepInFlight keeps an entry in flight by an id that is no part of its page.
func (d *delivery) keepInFlight(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flight[id] = true // a map takes the new string as its key
}

// newSlot returns the next slot in reading order.
func (d *delivery) newSlot(first int64) *slot {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &slot{first: first, oldest: first}
	d.slots = append(d.slots, s)
	d.pending(first)
	return s
}

// reserve keeps a slot for batches that are still to come, of entries from a
// second on.
func (d *delivery) reserve(first int64) *slot {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &slot{first: first, oldest: -1}
	d.slots = append(d.slots, s)
	return s
}

// pending notes an entry that has no outcome, and tells the observer if none is
// older. d.mu is held.
func (d *delivery) pending(timestamp int64) {
	if d.oldest != 0 && timestamp >= d.oldest {
		return
	}
	d.oldest = timestamp
	if f := d.p.opts.Observer.Waiting; f != nil {
		f(d.oldest)
	}
}

// finish completes a slot.
func (d *delivery) finish(s *slot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.complete(s)
}

// complete notes that everything in a slot has an outcome. d.mu is held.
func (d *delivery) complete(s *slot) {
	s.done = true
	for len(d.slots) > 0 && d.slots[0].done {
		d.slots = d.slots[1:]
		d.completed++
	}
	if s.oldest != d.oldest {
		return
	}
	d.oldest = 0
	for _, other := range d.slots {
		if !other.done && other.oldest >= 0 && (d.oldest == 0 || other.oldest < d.oldest) {
			d.oldest = other.oldest
		}
	}
	if f := d.p.opts.Observer.Waiting; f != nil {
		f(d.oldest)
	}
}

// read notes that a page has been handed over: everything up to a timestamp, in
// order, or everything up to an offset.
func (d *delivery) read(through int64, offset string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.through = max(d.through, through)
	d.pages = append(d.pages, pageEnd{offset, d.completed + len(d.slots)})
	d.passPages()
}

// passPages drops the ends of pages of which everything has an outcome. d.mu is held.
func (d *delivery) passPages() {
	for len(d.pages) > 0 && d.pages[0].slots <= d.completed {
		d.offset = d.pages[0].offset
		d.pages = d.pages[1:]
	}
}

// restart forgets how far the walk had come: it began again in another order.
func (d *delivery) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.through, d.pages, d.offset = 0, nil, ""
}

// safeOffset returns the token after the last page of which every entry has an outcome.
func (d *delivery) safeOffset() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.passPages()
	return d.offset
}

// safe returns the second up to which everything that was read has an outcome: just
// before the first entry that has none. 0 where no order is proven.
func (d *delivery) safe() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	safe := d.through
	for _, s := range d.slots {
		if !s.done {
			safe = min(safe, s.first-1)
			if s.oldest >= 0 { // a tail that reads newest first begins a batch with its newest entry
				safe = min(safe, s.oldest-1)
			}
		}
	}
	return safe
}

func (d *delivery) count(f func(*Summary)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.sum)
}
