package trigger

import (
	"context"
	"sync"
	"time"
)

// sparse counts what happens often, and says when to log it. The zero value is ready.
type sparse struct {
	mu   sync.Mutex
	last time.Time
	n    int
}

// tick counts one more. It returns how many there were since the last line if
// it is time for another, else 0. The first one is logged at once.
func (s *sparse) tick(now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	if !s.last.IsZero() && now.Sub(s.last) < logEvery {
		return 0
	}
	n := s.n
	s.n, s.last = 0, now
	return n
}

// claims remembers claimed ids in memory, for at least the time they were
// claimed for, unless there are more than maxClaims: then the oldest are
// forgotten first. A replay of one of those costs a look at the log.
type claims struct {
	mu        sync.Mutex
	now       func() time.Time
	turned    time.Time
	cur, prev map[string]struct{}
}

const maxClaims = 100_000

func newClaims(now func() time.Time) *claims {
	return &claims{now: now, turned: now(), cur: map[string]struct{}{}}
}

func (c *claims) claim(_ context.Context, id string, d time.Duration) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); len(c.cur) >= maxClaims || now.Sub(c.turned) >= d {
		c.prev, c.cur, c.turned = c.cur, map[string]struct{}{}, now
	}
	_, inCur := c.cur[id]
	_, inPrev := c.prev[id]
	if inCur || inPrev {
		return false, nil
	}
	c.cur[id] = struct{}{}
	return true, nil
}
