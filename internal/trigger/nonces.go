package trigger

import (
	"sync"
	"time"
)

// nonces remembers reserved ids in memory, for at least the time they were
// reserved for, unless there are more than maxNonces of them: then the oldest
// are forgotten first. Replaying a forgotten one costs a poll.
type nonces struct {
	mu        sync.Mutex
	now       func() time.Time
	turned    time.Time
	cur, prev map[string]struct{}
}

const maxNonces = 100_000

func newNonces(now func() time.Time) *nonces {
	return &nonces{now: now, turned: now(), cur: map[string]struct{}{}}
}

// reserve reserves id for d and reports whether it was free.
func (n *nonces) reserve(id string, d time.Duration) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := n.now(); len(n.cur) >= maxNonces || now.Sub(n.turned) >= d {
		n.prev, n.cur, n.turned = n.cur, map[string]struct{}{}, now
	}
	_, inCur := n.cur[id]
	_, inPrev := n.prev[id]
	if inCur || inPrev {
		return false
	}
	n.cur[id] = struct{}{}
	return true
}

// release frees an id whose trigger was not noted.
func (n *nonces) release(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cur, id)
	delete(n.prev, id)
}
