package app

import (
	"context"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/ledger"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/runner"
)

// Store is a ledger: all the roles that the hosts and commands need of one. It is
// safe for concurrent use.
type Store interface {
	delivery.Ledger
	pipeline.Marks
	pipeline.Undelivered
	pipeline.OwnReads
	runner.List
	Leases
	Undelivered
	Binding

	// ReserveNonce reports whether a nonce is reserved for the first time within d.
	// Triggers that are replayed are recognized by it.
	ReserveNonce(ctx context.Context, nonce string, d time.Duration) (fresh bool, err error)
	Close() error
}

// Leases makes passes exclusive over all processes of one source and destination.
type Leases interface {
	// Begin pins the ledger that is there, making one if there is none. Writes fail with
	// audit.ErrLedgerReplaced once it is another one.
	Begin(ctx context.Context) (fresh bool, err error)
	// Acquire fails with audit.ErrLeaseHeld, after it has asked the holder for a rerun
	// if requestRerun is set.
	Acquire(ctx context.Context, requestRerun bool) (ledger.Lease, error)
	// LeaseLeft returns how long another relay's lease lasts, 0 if nobody holds it.
	LeaseLeft(ctx context.Context) (time.Duration, error)
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
	delivery.Destination
	// Check returns an error with a hint unless the destination can be expected to
	// accept events. It delivers nothing.
	Check(ctx context.Context) error
}
