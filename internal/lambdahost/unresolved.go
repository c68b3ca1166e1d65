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

// watch returns a destination that notes what it could not deliver.
func (u *unresolved) watch(s delivery.Destination) delivery.Destination {
	return watchedDestination{s, u}
}

type watchedDestination struct {
	delivery.Destination
	unresolved *unresolved
}

// Put implements [delivery.Destination].
func (s watchedDestination) Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	verdicts, err := s.Destination.Put(ctx, entries)
	for i, v := range verdicts {
		if v.Status == audit.Retryable && i < len(entries) {
			s.unresolved.note(entries[i].Timestamp)
		}
	}
	return verdicts, err
}

func (u *unresolved) note(timestamp int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.oldest == 0 || timestamp < u.oldest {
		u.oldest = timestamp
	}
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
