// Package pipeline makes passes: it walks Kong's audit log, hands what it reads to a
// delivery, which puts what is new into the destination and records what was
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
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/lease"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// Marks returns how far the log has been read. Safe for concurrent use.
type Marks interface {
	Marks(ctx context.Context) (audit.Marks, error)
}

// Undelivered keeps the entries that could not be delivered. Safe for concurrent use.
type Undelivered interface {
	// UndeliveredEntries goes over dead letters and deferred entries, in no order.
	UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error]
	UndeliveredCounts(ctx context.Context) (audit.UndeliveredCounts, error)
}

// Options of a pipeline. Source, Ledger, Marks, Undelivered and Destination are required.
type Options struct {
	Source      walk.Source
	Ledger      delivery.Ledger
	Marks       Marks
	Undelivered Undelivered
	Destination delivery.Destination
	// UrgentDestination takes the entries that a tail beside a reconcile finds, so that
	// they need not wait behind the reconcile's own. Default: Destination.
	UrgentDestination delivery.Destination
	// Lease takes the lease under which passes are made. A dry run needs none.
	Lease *lease.Keeper
	// OwnReads notes each read of the log. May be nil.
	OwnReads OwnReads

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
	// RecordTTL is how long Kong keeps a row that does not say. Default 30 days.
	RecordTTL time.Duration
	// StartAt leaves out entries older than this Unix second. 0 leaves out none.
	StartAt int64
	// SkipOwnReads leaves out the entries that Kong wrote about reads that OwnReads
	// knows.
	SkipOwnReads bool
	// Adopt takes the log as it is, although it shows nothing of what was recorded before.
	Adopt bool
	// Changes says what requests changed. May be nil.
	Changes Changes
	// Prepare changes a new entry before anything leaves: redaction.
	Prepare func(*audit.Entry)

	Observer Observer
	Logger   *slog.Logger
}

// Observer holds callbacks. Every field may be nil; none may block. They are
// called from several goroutines.
type Observer struct {
	Stage     func(stage string, took time.Duration) // read, lookup, put, record
	Seen      func(entries []audit.Entry)            // every entry that the log showed
	Delivered func(entries []audit.Entry)            // accepted and recorded
	New       func(e *audit.Entry)                   // in a dry run, each entry that would be put, as it would be
	Progress  func(Summary)                          // now and then during a pass
	// OldestPending is called when the timestamp of the oldest new entry without an outcome
	// changes, with 0 for none. After a pass that failed, the last value stays until a
	// later pass changes it.
	OldestPending func(timestamp int64)
	// Changed is called for each change that an event describes, with how certain it is.
	Changed func(certainty string)
	// LateRows is called with the number of changed entities that Kong showed only after
	// their event had been put.
	LateRows func(n int)
}

// Pipeline makes passes.
type Pipeline struct {
	opts   Options
	log    *slog.Logger
	reader *walk.Reader

	unrecorded delivery.Unrecorded // outcomes that the ledger did not record

	passMu sync.Mutex // held by the pass that may move marks

	memory memory

	mu           sync.Mutex
	current      *pass // that concurrent tails can join; nil if there is none
	lastWide     time.Time
	lastDeferred time.Time
	heldFrom     int64 // timestamp of the oldest write that the last tail left to the next one; 0: none
}

// New returns a pipeline.
func New(opts Options) *Pipeline {
	opts.PageSize = cmp.Or(opts.PageSize, 1000)
	opts.Workers = cmp.Or(opts.Workers, 8)
	opts.BatchEntries = cmp.Or(opts.BatchEntries, 100)
	opts.BatchBytes = cmp.Or(opts.BatchBytes, 900_000)
	opts.FlightBytes = cmp.Or(opts.FlightBytes, 3<<20)
	opts.RetryFor = cmp.Or(opts.RetryFor, 2*time.Minute)
	opts.RecordFor = cmp.Or(opts.RecordFor, 5*time.Minute)
	opts.Grace = cmp.Or(opts.Grace, 10*time.Second)
	opts.RecordTTL = cmp.Or(opts.RecordTTL, 30*24*time.Hour)
	if opts.UrgentDestination == nil {
		opts.UrgentDestination = opts.Destination
	}
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	source := opts.Source
	if opts.OwnReads != nil {
		source = NoteOwnReads(source, opts.OwnReads, opts.Logger)
	}
	reader := walk.NewReader(walk.Options{Source: source, PageSize: opts.PageSize, StartAt: opts.StartAt, Logger: opts.Logger})
	return &Pipeline{opts: opts, log: opts.Logger, reader: reader}
}

// Reader returns the reader of the log, for a comparison of the log with the destination.
func (p *Pipeline) Reader() *walk.Reader { return p.reader }

// ErrOutOfTime ends a pass that stopped starting batches because its context's
// deadline was near. Summary.Left says what it did not get to; the next
// reconcile goes on there.
var ErrOutOfTime = errors.New("out of time before the pass was complete")

// Request asks for a pass.
type Request struct {
	Kind audit.PassKind
	// Full makes a reconcile read all that Kong has.
	Full bool
	// Since and Until bound a Window, Unix seconds, Until excluded; 0 leaves a side open.
	Since, Until int64
	// DryRun reads and counts, puts nothing, and needs no lease.
	DryRun bool
	// Wait is how long to wait for the lease before audit.ErrLeaseHeld.
	Wait time.Duration
	// OnRead is called once when a tail has read the log and is still delivering. May be nil.
	OnRead func()
	// OnHeld is called if a tail leaves writes waiting for the rows of what they changed,
	// with the time at which another tail should look for those rows. May be nil.
	OnHeld func(at time.Time)
	// RequestRerun requests a rerun from the process that holds the lease, if another one does.
	RequestRerun bool
}

// Summary is what a pass did.
type Summary struct {
	Kind  audit.PassKind `json:"kind"`
	Full  bool           `json:"full"`
	Order string         `json:"order"` // how the log was read
	Pages int            `json:"pages"` // requests for pages that were answered
	delivery.Counts
	Failed  int     `json:"failed"` // new, and neither delivered, dead nor deferred when the pass ended
	Seconds float64 `json:"seconds"`
	// Complete: read to the end, and everything has an outcome.
	Complete bool `json:"complete"`
	// Through: every entry visible up to this Unix second has an outcome.
	Through int64 `json:"through,omitempty"`
	// Beside: a tail that was made beside a reconcile. The entries that it found are counted
	// in the reconcile's summary.
	Beside bool `json:"-"`
	// Rerun: another process has requested a rerun. A tail should be made soon.
	Rerun bool `json:"-"`
	// Left says in words what a pass that was cut short did not get to.
	Left string `json:"left,omitempty"`
}

// Unordered reports whether the log has no order, so that each pass reads all of it.
func (s *Summary) Unordered() bool { return s.Order == walk.Unordered.String() }

// Add adds what another pass did.
func (s *Summary) Add(o Summary) {
	s.Pages += o.Pages
	s.Counts.Add(o.Counts)
	s.Failed += o.Failed
	s.Seconds += o.Seconds
	s.Complete = s.Complete && o.Complete
	s.Through = max(s.Through, o.Through)
	s.Order, s.Left = o.Order, o.Left
	s.Full = s.Full || o.Full
	s.Rerun = s.Rerun || o.Rerun
	s.Beside = o.Beside
}
