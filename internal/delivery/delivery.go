// Package delivery puts the entries of a log that are new into the destination, in
// batches, and records what became of them.
//
// An entry is in flight from its look-up until its outcome is recorded, and it is
// recorded only after the destination has accepted it. A [Delivery] is what a pass
// and the tails beside it share; each of them has [Workers] of its own.
package delivery

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Ledger remembers what became of entries. Safe for concurrent use. Its methods
// fail with audit.ErrLedgerReplaced once the ledger is another one than when the
// lease was taken, and with audit.ErrLedgerOlder once it has forgotten what it confirmed.
type Ledger interface {
	// Lookup returns what became of each entry, audit.NoOutcome for an unknown one.
	Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error)
	// Record is durable once it returns nil. Repeating it is harmless; the delivery does.
	Record(ctx context.Context, records []audit.Record) error
}

// Destination takes events. Put returns one verdict for each entry, always; what it
// reports as accepted is durable there even if err is not nil. It makes one
// attempt and does not wait: the delivery retries. *audit.SettingsError stops the
// pass. Safe for concurrent use.
type Destination interface {
	Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error)
}

// Options of a delivery. All fields are required unless they say otherwise.
type Options struct {
	Ledger Ledger
	// Valid returns an error once nothing may be put any more, because the lease is
	// lost. It is called before each put and contacts nobody.
	Valid func() error
	// Retention returns how long Kong still retains an entry, never less than 0.
	Retention func(*audit.Entry) time.Duration
	// Unrecorded is shared by all deliveries of a process.
	Unrecorded *Unrecorded

	// BatchEntries and BatchBytes bound a batch. An entry of more bytes is a batch by itself.
	BatchEntries, BatchBytes int
	// RetryFor is how long a batch is tried before its rest is deferred.
	RetryFor time.Duration
	// RecordFor is how long an accepted batch waits for a ledger that does not
	// answer, before its entries are left to be repeated.
	RecordFor time.Duration
	// DryRun looks entries up and counts them. Nothing is put or recorded.
	DryRun bool

	// OwnReads returns which of the entries are left out because they are the relay's
	// own reads, by index. outcomes are those of the look-up. May be nil.
	OwnReads func(ctx context.Context, entries []audit.Entry, outcomes []audit.Outcome) (map[int]bool, error)
	// Hold reports whether a new entry is held until [Workers.Release]. May be nil.
	Hold func(*audit.Entry) bool
	// Prepare changes a new entry before anything leaves: redaction. May be nil.
	Prepare func(*audit.Entry)

	Observer Observer
	Logger   *slog.Logger
}

// Observer holds callbacks. Every field may be nil; none may block. They are
// called from several goroutines.
type Observer struct {
	Stage     func(stage string, took time.Duration) // lookup, put, record
	Seen      func(entries []audit.Entry)            // every entry that the log showed
	Delivered func(entries []audit.Entry)            // accepted and recorded
	New       func(e *audit.Entry)                   // in a dry run, each entry that would be put, after Prepare
	// OldestPending is called when the timestamp of the oldest new entry without an outcome
	// changes, with 0 for none.
	OldestPending func(timestamp int64)
}

func (o *Observer) stage(name string, begin time.Time) {
	if o.Stage != nil {
		o.Stage(name, time.Since(begin))
	}
}

// Counts are numbers of entries, by what became of them.
type Counts struct {
	Read      int `json:"read"` // handed over, whether new or not
	New       int `json:"new"`  // not in the ledger, or without an outcome there
	Delivered int `json:"delivered"`
	Dead      int `json:"dead"`     // rejected permanently
	Deferred  int `json:"deferred"` // retries exhausted
	Own       int `json:"own"`      // the relay's own reads, left out on request
	Ahead     int `json:"ahead"`    // of those read, with a timestamp ahead of Kong's clock
	// StillDeferred counts the entries that an earlier pass deferred and that were
	// tried again without an outcome.
	StillDeferred int `json:"still_deferred"`
	// Reason says why the last entry was rejected or deferred: code and reason.
	Reason string `json:"reason,omitempty"`
	// Repeated counts the entries that the destination may hold twice: the answer to their
	// put was lost.
	Repeated     int `json:"repeated"`
	RetriedCalls int `json:"retries"` // calls of Put for entries that had been put before
}

// Add adds other counts.
func (c *Counts) Add(o Counts) {
	c.Read += o.Read
	c.New += o.New
	c.Delivered += o.Delivered
	c.Dead += o.Dead
	c.Deferred += o.Deferred
	c.Own += o.Own
	c.Ahead += o.Ahead
	c.StillDeferred += o.StillDeferred
	c.Reason = cmp.Or(o.Reason, c.Reason)
	c.Repeated += o.Repeated
	c.RetriedCalls += o.RetriedCalls
}

// note counts an entry that has an outcome.
func (c *Counts) note(r *audit.Record) {
	switch r.Outcome {
	case audit.Delivered:
		c.Delivered++
	case audit.Dead:
		c.Dead++
	case audit.Deferred:
		c.Deferred++
	case audit.NoOutcome, audit.Dropped, audit.Own: // not counted
	}
	if u := r.Undelivered; u != nil {
		c.Reason = strings.TrimPrefix(u.Code+": "+u.Reason, ": ")
	}
}

// Delivery is the state that a pass and the tails beside it share: the entries in flight,
// the time up to which everything has an outcome, and the gate before the destination.
// It is safe for concurrent use.
type Delivery struct {
	opts Options
	log  *slog.Logger
	gate *gate

	mu            sync.Mutex
	flight        map[string]bool // ids, from their look-up until they are recorded
	slots         []*slot         // of batches, in reading order, from the first one that is not complete
	completed     int             // slots that are complete and gone from slots
	oldestPending int64           // least timestamp in those that are not complete; 0 if all are
	through       int64           // timestamp up to which the log has been read, in order
	pages         []pageEnd       // ends of pages that are not complete
	offset        string          // token after the last page that is
	ledgerBack    chan struct{}   // closed once a ledger that does not answer records again, or is given up; nil while it answers
	ledgerGaveUp  error           // of a ledger that was waited for in vain; nothing more is put
	counts        Counts
}

// New returns the delivery of one pass.
func New(opts Options) *Delivery {
	return &Delivery{opts: opts, log: opts.Logger, gate: newGate(), flight: map[string]bool{}}
}

// slot is a batch's place in reading order.
type slot struct {
	from     int64 // least timestamp in it, or of batches that are still to come
	reserved bool  // it has no entries itself, and keeps a place for such batches
	left     int   // entries without an outcome; 0 until the batch is put
	weight   int   // bytes of its entries that count as in flight
	done     bool
}

// pageEnd is the end of a page. Everything up to it has an outcome once that many slots
// are complete.
type pageEnd struct {
	offset string
	slots  int
}

// takeIntoFlight marks a page's entries as in flight, and returns those that were not in
// flight before.
func (d *Delivery) takeIntoFlight(entries []audit.Entry) []audit.Entry {
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
func (d *Delivery) dropKnown(entries []audit.Entry, outcomes []audit.Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range entries {
		if outcomes[i] != audit.NoOutcome {
			delete(d.flight, entries[i].ID)
		}
	}
}

// detach copies an entry in flight, so that the memory of its page can be freed.
func (d *Delivery) detach(e *audit.Entry) {
	e.Detach()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flight[e.ID] = true // a map takes the new string as its key
}

// newSlot returns the next slot in reading order.
func (d *Delivery) newSlot(from int64) *slot {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &slot{from: from}
	d.slots = append(d.slots, s)
	d.pending(from)
	return s
}

// Reserve keeps a slot for batches that are still to come, of entries from a Unix second
// on: until finish is called, [Delivery.Safe] stays below that second.
func (d *Delivery) Reserve(from int64) (finish func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.reserve(from)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.complete(s)
	}
}

// reserve adds a reserved slot. d.mu is held.
func (d *Delivery) reserve(from int64) *slot {
	s := &slot{from: from, reserved: true}
	d.slots = append(d.slots, s)
	return s
}

// pending notes an entry that has no outcome, and tells the observer if none is
// older. d.mu is held.
func (d *Delivery) pending(timestamp int64) {
	if d.oldestPending != 0 && timestamp >= d.oldestPending {
		return
	}
	d.setOldestPending(timestamp)
}

// setOldestPending sets oldestPending, and tells the observer. d.mu is held.
func (d *Delivery) setOldestPending(timestamp int64) {
	d.oldestPending = timestamp
	if f := d.opts.Observer.OldestPending; f != nil {
		f(timestamp)
	}
}

// oldest returns the least timestamp in the slots that are not complete, 0 if all are.
// d.mu is held.
func (d *Delivery) oldest(reservedToo bool) (from int64) {
	for _, s := range d.slots {
		if !s.done && (reservedToo || !s.reserved) && (from == 0 || s.from < from) {
			from = s.from
		}
	}
	return from
}

// complete notes that everything in a slot has an outcome. d.mu is held.
func (d *Delivery) complete(s *slot) {
	s.done = true
	for len(d.slots) > 0 && d.slots[0].done {
		d.slots = d.slots[1:]
		d.completed++
	}
	if s.reserved || s.from != d.oldestPending {
		return
	}
	d.setOldestPending(d.oldest(false))
}

// NoteRead notes that a page of the walk has been handed over. In a log that is read oldest
// first it ends at a timestamp, in others at an offset.
func (d *Delivery) NoteRead(through int64, offset string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.through = max(d.through, through)
	d.pages = append(d.pages, pageEnd{offset, d.completed + len(d.slots)})
	d.dropPages()
}

// dropPages drops the ends of pages of which everything has an outcome. d.mu is held.
func (d *Delivery) dropPages() {
	for len(d.pages) > 0 && d.pages[0].slots <= d.completed {
		d.offset = d.pages[0].offset
		d.pages = d.pages[1:]
	}
}

// Restart forgets how far the walk had come, because it began again in another order.
// What is in flight stays in flight.
func (d *Delivery) Restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.through, d.pages, d.offset = 0, nil, ""
}

// SafeOffset returns the token after the last page of which every entry has an
// outcome, the empty string for none.
func (d *Delivery) SafeOffset() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropPages()
	return d.offset
}

// Safe returns the Unix second up to which everything that was read has an outcome: one
// second before the oldest entry that has none. It returns 0 unless the log is read oldest
// first and that order is proven.
func (d *Delivery) Safe() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if from := d.oldest(true); from != 0 {
		return min(d.through, from-1)
	}
	return d.through
}

// Unfinished returns the least timestamp of what has no outcome, read or reserved; 0 if
// everything has one.
func (d *Delivery) Unfinished() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.oldest(true)
}

// Counts returns what the delivery has counted so far.
func (d *Delivery) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts
}

func (d *Delivery) count(f func(*Counts)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.counts)
}
