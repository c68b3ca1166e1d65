// Package pipeline makes passes: it walks Kong's audit log, asks the ledger
// which entries are new, puts them into the destination, records what was
// accepted, and only then moves its marks.
//
// Reading, putting and recording overlap. What is held in memory is bounded by
// the batches in flight, not by the log. The order of the steps is what keeps the
// promise that nothing is lost: an entry is recorded after it was accepted, and a
// mark moves after everything before it was recorded.
package pipeline

import (
	"cmp"
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Source reads the log. Page returns a complete page or an error and may be
// repeated at will; it retries by itself what heals in seconds. Safe for
// concurrent use: a tail is read while a page of the pass is on its way.
type Source interface {
	Page(ctx context.Context, q audit.Query) (audit.Page, error)
}

// Ledger remembers what became of entries. Safe for concurrent use.
type Ledger interface {
	// Begin pins the ledger that is there, making one if there is none. Writes
	// and look-ups fail with audit.ErrLedgerReplaced once it is another one, and with
	// audit.ErrLedgerOlder once it has forgotten what it confirmed.
	Begin(ctx context.Context) (fresh bool, err error)
	// Lookup returns what became of each entry, audit.New for an unknown one.
	Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error)
	// Record is durable once it returns nil. Repeating it is harmless; the pass does.
	Record(ctx context.Context, records []audit.Record) error
}

// Book keeps what outlives a pass beside the entries: marks and deferred entries.
// Safe for concurrent use.
type Book interface {
	Marks(ctx context.Context) (audit.Marks, error)
	// UndeliveredEntries goes over what is dead or deferred, in no order.
	UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error]
	UndeliveredCounts(ctx context.Context) (dead, deferred int, err error)
}

// Lease makes passes exclusive over all processes of one source and destination.
// A method fails with audit.ErrLeaseLost once the lease has run out. Safe for
// concurrent use.
type Lease interface {
	Renew(ctx context.Context) error
	// RerunRequested reports whether another process has requested a rerun since it
	// was last asked. A call that fails has reported nothing.
	RerunRequested(ctx context.Context) (bool, error)
	// Release gives the lease up, unless a rerun was requested: then it stays and
	// rerun is true.
	Release(ctx context.Context) (rerun bool, err error)
	SetMarks(ctx context.Context, m audit.Marks) error
}

// Sink is the destination. Put returns one verdict for each entry, always; what
// it reports as accepted is durable there even if err is not nil. It makes one
// attempt and does not wait: the pass retries. *audit.SettingsError stops the
// pass. Safe for concurrent use.
type Sink interface {
	Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error)
}

// Options of a pipeline. Source, Ledger, Book, Acquire and Sink are required.
type Options struct {
	Source Source
	Ledger Ledger
	Book   Book
	// Acquire takes the lease. It fails with audit.ErrLeaseHeld if another process
	// holds it, having requested a rerun of that one if requestRerun is set.
	Acquire func(ctx context.Context, requestRerun bool) (Lease, error)
	Sink    Sink
	// UrgentSink takes the entries that a trigger asked for while a pass is under way,
	// so that they need not stand behind the pass's own. Default: Sink.
	UrgentSink Sink

	// PageSize is the number of rows asked for, 1 to 1000. Default 1000.
	PageSize int
	// Workers is the number of batches of the walk in flight. Default 8. Tails beside
	// it may have two more.
	Workers int
	// BatchEntries and BatchBytes bound a batch. Default 100 entries, 900,000 bytes.
	BatchEntries, BatchBytes int
	// FlightBytes bounds the walk's entries in flight, together. Default 3 MiB. Those
	// of tails beside it are bounded by BatchBytes.
	FlightBytes int
	// RetryFor is how long a batch is tried before its rest is deferred. Default 2 minutes.
	RetryFor time.Duration
	// RecordFor is how long an accepted batch waits for a ledger that does not
	// answer, before its entries are left to be repeated. Default 5 minutes.
	RecordFor time.Duration
	// Grace is how long batches in flight may take to end once the pass is told
	// to stop. Default 10 s.
	Grace time.Duration
	// DeadAfter is how long an entry stays deferred before it is a dead letter. Default 24 h.
	DeadAfter time.Duration
	// RecordTTL is how long Kong keeps a row that does not say. Default 30 days.
	RecordTTL time.Duration
	// LeaseTTL is the ledger's. Default 10 s.
	LeaseTTL time.Duration
	// StartAt leaves out entries older than this Unix second. 0 leaves out none.
	StartAt int64
	// SkipOwnReads leaves out the entries that Kong wrote about the relay's own reads.
	SkipOwnReads bool
	// Prepare changes a new entry before anything leaves: redaction.
	Prepare func(*audit.Entry)

	Observer Observer
	Logger   *slog.Logger
}

// Observer is told what happens. Every field may be nil; none may block. They are
// called from several goroutines.
type Observer struct {
	Stage     func(stage string, took time.Duration) // read, lookup, put, record
	Seen      func(entries []audit.Entry)            // every entry that the log showed
	Delivered func(entries []audit.Entry)            // accepted and recorded
	Progress  func(Summary)                          // now and then during a pass
	// Waiting is told whenever it changes how old the oldest entry is that is new and
	// has no outcome yet: its timestamp, or 0 if there is none. What a pass that
	// failed left behind stands until a later pass says otherwise.
	Waiting func(oldest int64)
}

func (o *Observer) stage(name string, since time.Time) {
	if o.Stage != nil {
		o.Stage(name, time.Since(since))
	}
}

// Pipeline makes passes, one at a time.
type Pipeline struct {
	opts Options
	log  *slog.Logger
	wait func(ctx context.Context, d time.Duration) error

	passing sync.Mutex // one pass at a time in this process

	warned sync.Map // warnings that are given once

	unrecorded unrecorded // outcomes that the ledger did not record

	// What one pass learns and the next one uses. Guarded by passing.
	order        order
	lastWide     time.Time
	lastDeferred time.Time
	own          ownReads
}

// New returns a pipeline.
func New(opts Options) *Pipeline {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	span := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&opts.PageSize, 1000)
	def(&opts.Workers, 8)
	def(&opts.BatchEntries, 100)
	def(&opts.BatchBytes, 900_000)
	def(&opts.FlightBytes, 3<<20)
	span(&opts.RetryFor, 2*time.Minute)
	span(&opts.RecordFor, 5*time.Minute)
	span(&opts.Grace, 10*time.Second)
	span(&opts.DeadAfter, 24*time.Hour)
	span(&opts.RecordTTL, 30*24*time.Hour)
	span(&opts.LeaseTTL, 10*time.Second)
	if opts.UrgentSink == nil {
		opts.UrgentSink = opts.Sink
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Pipeline{opts: opts, log: opts.Logger, wait: sleep}
}

// sleep waits, or returns early with the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// unwarned tells whether this process meets the occasion of a warning for the first time.
func (p *Pipeline) unwarned(key string) bool {
	_, given := p.warned.LoadOrStore(key, true)
	return !given
}

// Kind of a pass.
type Kind string

// Kinds.
const (
	Tail      Kind = "tail"      // from the cursor: what a trigger asks for
	Reconcile Kind = "reconcile" // 25 hours back, or all: what the schedule asks for
	Window    Kind = "window"    // a span of time that someone asked for; moves no mark
)

// Request asks for a pass.
type Request struct {
	Kind Kind
	// Full makes a reconcile read all that Kong has.
	Full bool
	// Since and Until bound a Window, Unix seconds, Until excluded; 0 leaves a side open.
	Since, Until int64
	// DryRun reads and counts, puts nothing, and needs no lease.
	DryRun bool
	// Wait is how long to wait for the lease before audit.ErrLeaseHeld.
	Wait time.Duration
	// TailWanted waits until something is to be looked for at once; a tail is then
	// made beside the walk of the pass, unless the log has no order. It returns an
	// error only if ctx ended. May be nil.
	TailWanted func(ctx context.Context) error
	// Word is called when another process left word that there is something to
	// look for, before the pass goes round again. May be nil.
	Word func(ctx context.Context)
}

// Summary is what a pass did.
type Summary struct {
	Kind      Kind   `json:"kind"`
	Full      bool   `json:"full"`
	Order     string `json:"order"` // how the log was read
	Pages     int    `json:"pages"` // requests for pages that were answered
	Read      int    `json:"read"`  // entries that the log showed
	New       int    `json:"new"`   // of those, not in the ledger
	Delivered int    `json:"delivered"`
	Failed    int    `json:"failed"`   // new, and neither delivered, dead nor deferred when the pass ended
	Dead      int    `json:"dead"`     // refused for good
	Deferred  int    `json:"deferred"` // retries exhausted
	Own       int    `json:"own"`      // the relay's own reads, left out on request
	Ahead     int    `json:"ahead"`    // with a timestamp ahead of Kong's clock
	// StillDeferred counts the entries that an earlier pass deferred and that this one
	// tried again without an outcome.
	StillDeferred int `json:"still_deferred"`
	// Reason says why the last entry was rejected or deferred: code and reason.
	Reason   string  `json:"reason,omitempty"`
	Repeated int     `json:"repeated"` // put again because an answer was lost
	Retries  int     `json:"retries"`  // puts that had to be made again
	Seconds  float64 `json:"seconds"`
	// Complete: read to the end, and everything has an outcome.
	Complete bool `json:"complete"`
	// Through: every entry visible up to this Unix second has an outcome.
	Through int64 `json:"through,omitempty"`
	// Word: another process left word, and the pass had gone round often enough. A
	// tail should be made soon.
	Word bool `json:"word,omitempty"`
	// Left says what a pass that was cut short did not get to, in words.
	Left string `json:"left,omitempty"`
}

// note counts an entry that has an outcome.
func (s *Summary) note(r *audit.Record) {
	switch r.Outcome {
	case audit.Delivered:
		s.Delivered++
	case audit.Dead:
		s.Dead++
	case audit.Deferred:
		s.Deferred++
	case audit.New, audit.Dropped, audit.Own: // not counted
	}
	if u := r.Undelivered; u != nil {
		s.Reason = u.Code + ": " + u.Reason
	}
}

func (s *Summary) add(o Summary) {
	s.Pages += o.Pages
	s.Read += o.Read
	s.New += o.New
	s.Delivered += o.Delivered
	s.Failed += o.Failed
	s.Dead += o.Dead
	s.Deferred += o.Deferred
	s.StillDeferred += o.StillDeferred
	s.Reason = cmp.Or(o.Reason, s.Reason)
	s.Own += o.Own
	s.Ahead += o.Ahead
	s.Repeated += o.Repeated
	s.Retries += o.Retries
	s.Complete = s.Complete && o.Complete
	s.Through = max(s.Through, o.Through)
}
