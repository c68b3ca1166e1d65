package lambdahost

import (
	"context"
	"sync"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/delivery"
)

// unresolved notes the oldest entry that a destination was last unable to deliver.
// It is safe for concurrent use.
type unresolved struct {
	mu     sync.Mutex
	oldest int64 // Unix seconds; 0: none
}

// put puts entries, and notes those that are to be put again.
func (u *unresolved) put(ctx context.Context, to delivery.Destination, entries []audit.Entry) ([]audit.Verdict, error) {
	verdicts, err := to.Put(ctx, entries)
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range min(len(verdicts), len(entries)) {
		if at := entries[i].Timestamp; verdicts[i].Status == audit.Retryable && (u.oldest == 0 || at < u.oldest) {
			u.oldest = at
		}
	}
	return verdicts, err
}

// take returns the timestamp of the oldest entry without an outcome since the last
// call, or 0.
func (u *unresolved) take() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	t := u.oldest
	u.oldest = 0
	return t
}
