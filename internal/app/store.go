package app

import (
	"context"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// Store is a ledger: all the roles that the hosts and commands need of one. It is
// safe for concurrent use.
type Store interface {
	pipeline.Ledger
	pipeline.Book
	Leases
	Announcements
	OwnReads
	Undelivered
	Binding

	// ReserveNonce reports whether a nonce is reserved for the first time within d.
	// Triggers that are replayed are recognized by it.
	ReserveNonce(ctx context.Context, nonce string, d time.Duration) (fresh bool, err error)
	Close() error
}

// Leases makes passes exclusive over all processes of one source and destination.
type Leases interface {
	// Acquire fails with audit.ErrLeaseHeld, after it has asked the holder for a rerun
	// if requestRerun is set.
	Acquire(ctx context.Context, requestRerun bool) (ledger.Lease, error)
	// LeaseLeft returns how long another relay's lease lasts, 0 if nobody holds it.
	LeaseLeft(ctx context.Context) (time.Duration, error)
}

// OwnReads are the ids of requests that relays on this ledger made to Kong.
type OwnReads interface {
	NoteOwnReads(ctx context.Context, ids []string) error
	AreOwnReads(ctx context.Context, ids []string) ([]bool, error)
}

// Announcements is the list of ids that triggers named and the log has not shown.
// Every call is idempotent.
type Announcements interface {
	Announce(ctx context.Context, ids []string, at time.Time) error
	Announced(ctx context.Context) ([]audit.Announcement, error)
	Unannounce(ctx context.Context, ids []string) error
}

// Undelivered finds single dead letters and deferred entries.
type Undelivered interface {
	UndeliveredEntry(ctx context.Context, id string) (audit.Undelivered, bool, error)
	// OldestUndelivered returns when the oldest dead letter and the oldest deferred
	// entry were made by Kong, the zero time for none.
	OldestUndelivered(ctx context.Context) (dead, deferred time.Time, err error)
}

// Binding ties a ledger to one Kong.
type Binding interface {
	// Bind fails with audit.ErrForeignLedger if the ledger was used with another
	// address, unless adopt is set.
	Bind(ctx context.Context, url string, adopt bool) error
	Ping(ctx context.Context) error
}

// Sink is a destination.
type Sink interface {
	pipeline.Sink
	// Check returns an error with a hint unless the destination can be expected to
	// accept events. It delivers nothing.
	Check(ctx context.Context) error
}
