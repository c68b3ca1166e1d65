package trigger

import (
	"net/http"
	"slices"
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

// claim takes id for d, and tells whether it was free.
func (c *claims) claim(id string, d time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); len(c.cur) >= maxClaims || now.Sub(c.turned) >= d {
		c.prev, c.cur, c.turned = c.cur, map[string]struct{}{}, now
	}
	_, inCur := c.cur[id]
	_, inPrev := c.prev[id]
	if inCur || inPrev {
		return false
	}
	c.cur[id] = struct{}{}
	return true
}

// forget frees an id that nothing came of.
func (c *claims) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.cur, id)
	delete(c.prev, id)
}

// bodies bounds how many bodies are being read at a time, and with that the
// memory that strangers can take: a body must have been read before its
// signature can be checked. One too many cuts off the one that has taken
// longest. A trigger is there in an instant, so that one is slow by accident or
// on purpose; waiting for a place instead would let a few slow ones keep out
// all others. The zero value is ready.
type bodies struct {
	mu   sync.Mutex
	open []*http.ResponseController // the oldest first
}

const maxBodies = 256

// begin lets the body of c's request take readFor, or less if others come.
func (b *bodies) begin(c *http.ResponseController) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Not every ResponseWriter has deadlines; a server's has.
	_ = c.SetReadDeadline(time.Now().Add(readFor))
	if len(b.open) >= maxBodies {
		_ = b.open[0].SetReadDeadline(time.Unix(1, 0))
		b.open = slices.Delete(b.open, 0, 1)
	}
	b.open = append(b.open, c)
}

func (b *bodies) end(c *http.ResponseController) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.open, c); i >= 0 {
		b.open = slices.Delete(b.open, i, i+1)
	}
}
