package pipeline

import (
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// delivery is what the lanes of one pass share: which entries are in flight, and
// how far those that were read in order have an outcome.
type delivery struct {
	p     *Pipeline
	valid func() error // whether the lease is still held
	keep  func(e *audit.Entry) time.Duration

	mu       sync.Mutex
	flight   map[string]bool // ids from being looked up until they are recorded
	pieces   []*piece        // batches in reading order, from the first unfinished one
	oldest   int64           // least timestamp of those that are unfinished; 0 if none is
	popped   int             // finished batches that are gone from pieces
	through  int64           // timestamp up to which the log has been read, in order
	pages    []pageEnd       // ends of pages that are not safe yet, in orders other than oldest first
	offset   string          // token after the last page that is
	accepted time.Time       // when the destination last accepted something
	stuck    chan struct{}   // closed once a ledger that failed to record does so again; nil while it does
	sum      Summary
}

// piece is a batch's place in reading order.
type piece struct {
	first  int64 // timestamp of its first entry
	oldest int64 // least timestamp in it, once it is whole; less than 0 if it is a place and nothing more
	done   bool
}

// pageEnd is a page's end: safe once that many batches are finished.
type pageEnd struct {
	offset  string
	batches int
}

// claim takes a page's entries into flight, and returns those that were not.
func (d *delivery) claim(entries []audit.Entry) []audit.Entry {
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

// unclaim gives up those of a page's entries that have an outcome already.
func (d *delivery) unclaim(entries []audit.Entry, outcomes []audit.Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range entries {
		if outcomes[i] != audit.New {
			delete(d.flight, entries[i].ID)
		}
	}
}

// hold keeps an entry in flight by an id that is not part of its page any more.
func (d *delivery) hold(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flight[id] = true // a map takes the new string as its key
}

// place reserves the next place in reading order.
func (d *delivery) place(first int64) *piece {
	d.mu.Lock()
	defer d.mu.Unlock()
	pc := &piece{first: first, oldest: first}
	d.pieces = append(d.pieces, pc)
	d.waiting(first)
	return pc
}

// reserve keeps a place for batches that are still to come, of entries from a
// second on.
func (d *delivery) reserve(first int64) *piece {
	d.mu.Lock()
	defer d.mu.Unlock()
	pc := &piece{first: first, oldest: -1}
	d.pieces = append(d.pieces, pc)
	return pc
}

// waiting takes note that an entry waits, and tells the observer if none is
// older. d.mu is held.
func (d *delivery) waiting(timestamp int64) {
	if d.oldest != 0 && timestamp >= d.oldest {
		return
	}
	d.oldest = timestamp
	if f := d.p.opts.Observer.Waiting; f != nil {
		f(d.oldest)
	}
}

func (d *delivery) finish(pc *piece) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pc.done = true
	for len(d.pieces) > 0 && d.pieces[0].done {
		d.pieces = d.pieces[1:]
		d.popped++
	}
	if pc.oldest != d.oldest {
		return
	}
	d.oldest = 0
	for _, other := range d.pieces {
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
	d.pages = append(d.pages, pageEnd{offset, d.popped + len(d.pieces)})
	d.settle()
}

// settle drops the ends of pages that have become safe. d.mu is held.
func (d *delivery) settle() {
	for len(d.pages) > 0 && d.pages[0].batches <= d.popped {
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

// safeOffset is the token after the last page of which every entry has an outcome.
func (d *delivery) safeOffset() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settle()
	return d.offset
}

// safe is the second up to which everything that was read has an outcome: just
// before the first entry that has none. 0 where no order is proven.
func (d *delivery) safe() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.through
	for _, pc := range d.pieces {
		if !pc.done {
			s = min(s, pc.first-1)
		}
	}
	return s
}

func (d *delivery) acceptedSince(t time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.accepted.IsZero() && !d.accepted.Before(t)
}

func (d *delivery) count(f func(*Summary)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.sum)
}
