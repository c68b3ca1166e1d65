package app

import (
	"context"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
	"github.com/kong-cloudtrail/relay/internal/objects"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/runner"
)

// Store is a ledger with all that the hosts and commands need of one. It is safe for
// concurrent use.
type Store interface {
	runner.Ledger
	pipeline.Undelivered
	objects.Memory

	// Begin pins the ledger that is there, making one if there is none. Writes fail with
	// audit.ErrLedgerReplaced once it is another one.
	Begin(ctx context.Context) error
	// Acquire takes the lease of this source and destination. If another process holds it,
	// Acquire fails with audit.ErrLeaseHeld, and if requestRerun is set, it requests a rerun
	// from that process.
	Acquire(ctx context.Context, requestRerun bool) (ledger.Lease, error)

	// UndeliveredEntry finds a dead letter or a deferred entry.
	UndeliveredEntry(ctx context.Context, id string) (audit.Undelivered, bool, error)
	// HasUndelivered reports for each id whether its entry is stored.
	HasUndelivered(ctx context.Context, ids []string) ([]bool, error)

	// PutOutage stores an outage, or replaces the one that has its id and began at the
	// same time. It is durable once it returns nil.
	PutOutage(ctx context.Context, o audit.Outage) error
	// Outages returns the outages that had not ended by a time, oldest first.
	Outages(ctx context.Context, since time.Time) ([]audit.Outage, error)

	// BindKong ties the ledger to one Kong. It fails with audit.ErrLedgerMismatch if the
	// ledger was used with another address, unless adopt is set.
	BindKong(ctx context.Context, url string, adopt bool) error
	// BindAccount ties the ledger to one AWS account. It fails with
	// audit.ErrAccountMismatch if the ledger was used with another one, unless adopt is set.
	BindAccount(ctx context.Context, account string, adopt bool) error
	Ping(ctx context.Context) error
	// Check looks at the settings of the ledger's server, if it has any. It fails with
	// audit.ErrEvicting if they would make it forget what must be kept, and returns a
	// sentence for each lesser worry.
	Check(ctx context.Context) (warnings []string, err error)

	// ReserveNonce reports whether a nonce is reserved for the first time within d.
	// Triggers that are replayed are recognized by it.
	ReserveNonce(ctx context.Context, nonce string, d time.Duration) (fresh bool, err error)
	Close() error
}

// CommandPath is the path of the operations listener at which a relay whose ledger is a file
// runs commands for others, as one process at a time can open it. The request is the command
// line, the answer a [CommandOutput] for each part of the output.
const CommandPath = "/ledger/command"

// CommandOutput is what a command has written, or how it has ended.
type CommandOutput struct {
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
	Exit   *int   `json:"exit,omitempty"` // set in the last one
}

// KeyFile returns where a relay keeps the key for CommandPath while it runs: beside the
// ledger's file.
func KeyFile(ledgerFile string) string { return ledgerFile + ".key" }
