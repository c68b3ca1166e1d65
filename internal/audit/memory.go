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

// ErrMemoryChanged is returned by a ledger that has remembered something else since the
// version that the caller knows. Recalling again cures it.
var ErrMemoryChanged = errors.New("the ledger's memory has changed meanwhile")
