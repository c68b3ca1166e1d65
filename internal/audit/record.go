package audit

import (
	"errors"
	"fmt"
	"time"
)

// Outcome is what became of an entry. A pass does not put an entry that has one, except a
// deferred one. The numbers are stored: never change one.
type Outcome uint8

// Outcomes.
const (
	NoOutcome Outcome = 0 // not in the ledger
	Delivered Outcome = 1 // the destination accepted it
	Dead      Outcome = 2 // rejected permanently: a dead letter, kept whole
	Deferred  Outcome = 3 // retries exhausted: kept whole, and put first by each pass
	Dropped   Outcome = 4 // was dead, and someone dropped it and gave a reason
	Own       Outcome = 5 // a read by the relay itself, left out on request
)

func (o Outcome) String() string {
	names := [...]string{"new", "delivered", "dead", "deferred", "dropped", "own"}
	if int(o) < len(names) {
		return names[o]
	}
	return "unknown"
}

// PassKind is what a pass reads.
type PassKind string

// Kinds of passes.
const (
	NoPass    PassKind = ""
	Tail      PassKind = "tail"      // from the cursor: what a trigger asks for
	Reconcile PassKind = "reconcile" // 25 hours back, or all: what the schedule asks for
	Window    PassKind = "window"    // a span of time that someone asked for; moves no mark
)

// Record is what the ledger keeps of an entry that has an outcome.
type Record struct {
	ID        string
	Timestamp int64 // of the entry, Unix seconds: it chooses the bucket
	// Retention is how long Kong still retains the row, counted from now. The ledger
	// remembers the id for longer (ledger.Life), so that no pass meets it again.
	Retention time.Duration
	Outcome   Outcome
	// Undelivered is stored with an outcome of Dead or Deferred, and nil otherwise.
	// Any other outcome removes the stored entry of the same id.
	Undelivered *Undelivered
}

// Undelivered is an entry that could not be delivered, whole, and the reason: a
// dead letter or a deferred entry.
type Undelivered struct {
	Entry   Entry     `json:"entry"`
	Outcome Outcome   `json:"outcome"` // Dead or Deferred
	Code    string    `json:"code"`    // the destination's own word, such as InvalidData
	Reason  string    `json:"reason"`
	Since   time.Time `json:"since"`           // when it was first refused or deferred
	Tries   int       `json:"tries,omitempty"` // puts so far
}

// UnreadableError is the error of an undelivered entry that the ledger keeps and that cannot
// be decoded. Others are not affected.
type UnreadableError struct {
	ID  string
	Err error
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("decoding undelivered entry %s: %v", e.ID, e.Err)
}

func (e *UnreadableError) Unwrap() error { return e.Err }

// IsUnreadable reports whether an error concerns only one undelivered entry: see [UnreadableError].
func IsUnreadable(err error) bool {
	var u *UnreadableError
	return errors.As(err, &u)
}

// UndeliveredCounts are the numbers of undelivered entries.
type UndeliveredCounts struct {
	Dead, Deferred int
	OldestDeferred time.Time // since when the oldest deferred one waits, to the millisecond; zero for none
}

// Marks say how far the log has been read. Times are Unix seconds by Kong's
// clock; 0 means never.
type Marks struct {
	// Cursor: every entry that was visible up to here has an outcome.
	Cursor int64 `json:"cursor"`
	// ReconciledThrough is when the last complete reconcile began.
	ReconciledThrough int64 `json:"reconciled_through"`
	// FullAt is when the last complete reconcile began that read all that Kong has.
	FullAt int64 `json:"full_at"`
	// Completed is when the last complete pass began to read.
	Completed int64 `json:"completed,omitempty"`
	// FailedSince is when the first pass failed of those that have failed since the last one
	// that was complete, or 0. A pass that was stopped, or was cut by a deadline, did not fail.
	FailedSince int64 `json:"failed_since,omitempty"`
	// Witnesses are some of the newest entries that had an outcome when the marks were
	// written. While Kong retains them, a log that shows none of them is another
	// log, or an emptied one.
	Witnesses []Witness `json:"witnesses,omitempty"`
	// Resume is where a reconcile stopped that was cut short, or nil.
	Resume *Resume `json:"resume,omitempty"`
}

// Witness is an entry that the log has shown. Times are Unix seconds by Kong's clock.
type Witness struct {
	ID      string `json:"id"`
	At      int64  `json:"at"`      // its timestamp
	Expires int64  `json:"expires"` // until when Kong retains it
}

// Resume is a reconcile that was cut short.
type Resume struct {
	Order   string `json:"order"`            // the way of reading
	Started int64  `json:"started"`          // when the reconcile began, by Kong's clock
	Floor   int64  `json:"floor"`            // oldest second it has to read
	From    int64  `json:"from"`             // second it had come to, oldest first
	Offset  string `json:"offset,omitempty"` // token of the page it had come to, other orders
	Newest  int64  `json:"newest,omitempty"` // newest timestamp it saw at its start, other orders
	Full    bool   `json:"full,omitempty"`
}

// Announcement is an id that a trigger named and that has not been seen in the log.
type Announcement struct {
	ID string    `json:"id"`
	At time.Time `json:"at"` // when the trigger came
}

// Errors of a ledger that a pass must tell apart. Ledgers wrap them.
var (
	// ErrLedgerReplaced: the ledger is not the one that the pass began with. It
	// was emptied or replaced; nothing was written. Start over with a full read.
	ErrLedgerReplaced = errors.New("ledger was emptied or replaced")
	// ErrLedgerOlder: the ledger has forgotten writes that it had confirmed. It was
	// restored from a snapshot, or a replica took over that lagged; nothing was
	// written. Start over with a full read.
	ErrLedgerOlder = errors.New("ledger is older than it was")
	// ErrLeaseLost: somebody else holds the lease, or nobody does. Marks were not written.
	ErrLeaseLost = errors.New("lease lost")
	// ErrLeaseHeld: another process is making a pass. If the caller asked for it, a rerun was
	// requested of that process.
	ErrLeaseHeld = errors.New("another relay holds the lease")
	// ErrLedgerMismatch: the ledger was made for another Kong.
	ErrLedgerMismatch = errors.New("ledger belongs to another Kong")
	// ErrAccountMismatch: the ledger was used with another AWS account.
	ErrAccountMismatch = errors.New("ledger belongs to another AWS account")
	// ErrLogMismatch: Kong shows none of the entries that the ledger has recorded and
	// that Kong should still retain. It is another Kong, its audit table was emptied, or
	// the answer is broken. No mark was moved.
	ErrLogMismatch = errors.New("kong shows nothing of what was recorded before")
	// ErrNoLedger: there is no file with this name.
	ErrNoLedger = errors.New("no such ledger")
	// ErrLedgerInUse: another process has the ledger's file open.
	ErrLedgerInUse = errors.New("in use by another relay")
	// ErrEvicting: the ledger's server may evict what must be kept.
	ErrEvicting = errors.New("eviction policy would evict dead letters and marks")
)

// LedgerForgot reports whether an error says that the ledger has lost what it had recorded
// when the pass began. Such a pass starts over with a full read.
func LedgerForgot(err error) bool {
	return errors.Is(err, ErrLedgerReplaced) || errors.Is(err, ErrLedgerOlder)
}
