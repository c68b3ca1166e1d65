package pipeline

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/lease"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// store is what the handles of several relays share: a ledger in memory with
// marks, letters and a lease.
type store struct {
	mu         sync.Mutex
	generation int
	outcomes   map[string]audit.Outcome
	keeps      map[string]time.Duration
	letters    map[string]audit.Undelivered
	marks      audit.Marks
	moved      []audit.Marks // every state of the marks

	tokens int
	holder string
	until  time.Time
	ttl    time.Duration
	words  int

	writes int
	record func(n int, records []audit.Record) error // may fail a Record; n counts from 1
	set    func() error                              // may fail SetMarks
	lookup func() error                              // may fail Lookup
	own    map[string]bool                           // ids of own reads
	renew  func(ctx context.Context) error           // may fail Renew
}

func newStore() *store {
	s := &store{ttl: 10 * time.Second}
	s.empty()
	s.generation = 0
	return s
}

// empty is FLUSHALL.
func (s *store) empty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation = -s.generation // negative: there is none; the next one differs from all before
	if s.generation > 0 {
		s.generation = -s.generation
	}
	s.own = map[string]bool{}
	s.outcomes, s.keeps, s.letters = map[string]audit.Outcome{}, map[string]time.Duration{}, map[string]audit.Undelivered{}
	s.marks, s.holder, s.words = audit.Marks{}, "", 0
}

func (s *store) outcome(id string) audit.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outcomes[id]
}

func (s *store) saved() audit.Marks {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marks
}

func (s *store) count(o audit.Outcome) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, had := range s.outcomes {
		if had == o {
			n++
		}
	}
	return n
}

// steal gives the lease to somebody else.
func (s *store) steal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens++
	s.holder, s.until = fmt.Sprintf("thief %d", s.tokens), time.Now().Add(s.ttl)
}

// handle is a relay's connection to the store. It has the roles of the ledger.
type handle struct {
	*store
	mu     sync.Mutex
	pinned int
	heard  int // words that the holder was told of
}

func (h *handle) check(needed bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.pinned == 0 && needed:
		return errors.New("written to before Begin")
	case h.pinned != 0 && h.pinned != h.generation:
		return fmt.Errorf("checking: %w", audit.ErrLedgerReplaced)
	}
	return nil
}

func (h *handle) Begin(ctx context.Context) error {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if h.generation <= 0 {
		h.generation = -h.generation + 1
		h.writes++
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pinned = h.generation
	return ctx.Err()
}

func (h *handle) Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if err := errors.Join(ctx.Err(), h.check(false)); err != nil {
		return nil, err
	}
	if h.lookup != nil {
		if err := h.lookup(); err != nil {
			return nil, err
		}
	}
	out := make([]audit.Outcome, len(entries))
	for i := range entries {
		out[i] = h.outcomes[entries[i].ID]
	}
	return out, nil
}

func (h *handle) Record(ctx context.Context, records []audit.Record) error {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if err := errors.Join(ctx.Err(), h.check(true)); err != nil {
		return err
	}
	h.writes++
	if h.record != nil {
		if err := h.record(h.writes, records); err != nil {
			return err
		}
	}
	for _, r := range records {
		if kept := r.Outcome == audit.Dead || r.Outcome == audit.Deferred; kept != (r.Undelivered != nil) {
			return fmt.Errorf("%s with letter %v", r.Outcome, r.Undelivered != nil)
		}
		if r.Retention < 0 {
			return fmt.Errorf("%s is kept for %s", r.ID, r.Retention)
		}
		if h.outcomes[r.ID] == audit.Delivered {
			continue
		}
		h.outcomes[r.ID], h.keeps[r.ID] = r.Outcome, r.Retention
		delete(h.letters, r.ID)
		if r.Undelivered != nil {
			h.letters[r.ID] = *r.Undelivered
		}
	}
	return nil
}

func (h *handle) Marks(ctx context.Context) (audit.Marks, error) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	return h.marks, errors.Join(ctx.Err(), h.check(false))
}

func (h *handle) UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error] {
	return func(yield func(audit.Undelivered, error) bool) {
		h.store.mu.Lock()
		all := maps.Clone(h.letters)
		h.store.mu.Unlock()
		for _, id := range slices.Sorted(maps.Keys(all)) {
			if !yield(all[id], ctx.Err()) {
				return
			}
		}
	}
}

func (h *handle) UndeliveredCounts(ctx context.Context) (audit.UndeliveredCounts, error) {
	return audit.UndeliveredCounts{Dead: h.count(audit.Dead), Deferred: h.count(audit.Deferred)}, ctx.Err()
}

// holds says whether a token is the lease's. The store is locked.
func (h *handle) holds(token string) bool {
	return token != "" && h.holder == token && time.Now().Before(h.until)
}

func (h *handle) NoteOwnReads(_ context.Context, ids []string) error {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	for _, id := range ids {
		h.own[id] = true
	}
	return nil
}

func (h *handle) AreOwnReads(_ context.Context, ids []string) ([]bool, error) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	are := make([]bool, len(ids))
	for i, id := range ids {
		are[i] = h.own[id]
	}
	return are, nil
}

// keeper keeps the store's lease for this handle.
func (h *handle) keeper() *lease.Keeper {
	return lease.NewKeeper(lease.Options{Acquire: h.Acquire, Begin: h.Begin, TTL: h.ttl})
}

func (h *handle) Acquire(ctx context.Context, requestRerun bool) (ledger.Lease, error) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if h.holds(h.holder) {
		if requestRerun {
			h.words++
		}
		return nil, fmt.Errorf("acquiring: %w", audit.ErrLeaseHeld)
	}
	h.tokens++
	h.holder, h.until, h.heard = fmt.Sprintf("lease %d", h.tokens), time.Now().Add(h.ttl), h.words
	return &storeLease{handle: h, token: h.holder}, nil
}

// storeLease is the lease that a handle has.
type storeLease struct {
	*handle
	token string
}

func (h *storeLease) Renew(ctx context.Context) (bool, error) {
	if h.renew != nil {
		if err := h.renew(ctx); err != nil {
			return false, err
		}
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if !h.holds(h.token) {
		return false, fmt.Errorf("renewing: %w", audit.ErrLeaseLost)
	}
	h.until = time.Now().Add(h.ttl)
	word := h.words != h.heard
	h.heard = h.words
	return word, nil
}

func (h *storeLease) Release(ctx context.Context) (bool, error) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if !h.holds(h.token) {
		return false, fmt.Errorf("releasing: %w", audit.ErrLeaseLost)
	}
	word := h.words != h.heard
	h.heard = h.words
	if word {
		h.until = time.Now().Add(h.ttl)
	} else {
		h.holder = ""
	}
	return word, nil
}

func (h *storeLease) SetMarks(ctx context.Context, m audit.Marks) error {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if err := errors.Join(ctx.Err(), h.check(true)); err != nil {
		return err
	}
	if h.set != nil {
		if err := h.set(); err != nil {
			return err
		}
	}
	if !h.holds(h.token) {
		return fmt.Errorf("writing marks: %w", audit.ErrLeaseLost)
	}
	h.writes++
	h.marks, h.moved = m, append(h.moved, m)
	return nil
}
