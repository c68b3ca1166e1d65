package audit

import (
	"errors"
	"time"
)

// Item is something that a ledger remembers under a key.
type Item struct {
	Key   string
	Value []byte    // empty: nothing, from now on
	Until time.Time // when it may be forgotten
}

// ErrMemoryChanged is returned by a ledger whose memory has changed since the version that
// the caller knows. The caller recalls and tries again.
var ErrMemoryChanged = errors.New("the ledger's memory has changed meanwhile")

// Writes are the entries of one walk that wait for what their requests changed.
type Writes struct {
	Entries []Entry
	// Live: the walk is a tail, which looks for recent rows and will be repeated.
	Live bool
	// Floor is the first second that the walk reads, and Through the one up to which it has
	// read the log whole; 0 where it has not.
	Floor, Through int64
	// Sweep asks to read the rows from Floor on, whether a write waits or not: a reconcile.
	Sweep bool
}
