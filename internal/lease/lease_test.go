package lease

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/leaktest"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const ttl = 10 * time.Second

// store is a ledger's lease in memory.
type store struct {
	mu       sync.Mutex
	holder   int
	until    time.Time
	next     int
	requests int
	told     int

	releasing func() // is called by Release first; may be nil
}

func (s *store) Acquire(_ context.Context, requestRerun bool) (ledger.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != 0 && time.Now().Before(s.until) {
		if requestRerun {
			s.requests++
		}
		return nil, audit.ErrLeaseHeld
	}
	s.next++
	s.holder, s.until, s.told = s.next, time.Now().Add(ttl), s.requests
	return &storeLease{s, s.next}, nil
}

func (s *store) steal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	s.holder, s.until = s.next, time.Now().Add(ttl)
}

type storeLease struct {
	*store
	token int
}

func (l *storeLease) held(f func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder != l.token || !time.Now().Before(l.until) {
		return audit.ErrLeaseLost
	}
	f()
	return nil
}

func (l *storeLease) Renew(context.Context) (rerun bool, err error) {
	err = l.held(func() {
		l.until = time.Now().Add(ttl)
		rerun, l.told = l.requests != l.told, l.requests
	})
	return rerun, err
}

func (l *storeLease) Release(context.Context) (rerun bool, err error) {
	err = l.held(func() {
		if l.releasing != nil {
			l.releasing()
		}
		if rerun, l.told = l.requests != l.told, l.requests; !rerun {
			l.holder = 0
		}
	})
	return rerun, err
}

func (l *storeLease) SetMarks(context.Context, audit.Marks) error { return l.held(func() {}) }

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func TestDoKeepsTheLeaseAndGivesItUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		begun := 0
		k := NewKeeper(Options{TTL: ttl, Acquire: s.Acquire, Begin: func(context.Context) error { begun++; return nil }})
		broken := errors.New("broken")
		rerun, err := k.Do(t.Context(), true, 0, func(ctx context.Context, h *Held) error {
			if err := wait(ctx, time.Minute); err != nil {
				t.Errorf("the lease was not kept: %v", err)
			}
			if _, err := s.Acquire(ctx, false); !errors.Is(err, audit.ErrLeaseHeld) {
				t.Errorf("another process got it: %v", err)
			}
			if err := h.SetMarks(ctx, audit.Marks{}); err != nil {
				t.Error(err)
			}
			return broken
		})
		if !errors.Is(err, broken) || rerun || begun != 1 {
			t.Errorf("%v, rerun %v, begun %d times", err, rerun, begun)
		}
		if _, err := s.Acquire(t.Context(), false); err != nil {
			t.Errorf("the lease was not given up: %v", err)
		}
	})
}

// Passes beside each other share the lease, and the last one gives it up.
func TestSharedLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		begun := 0
		k := NewKeeper(Options{TTL: ttl, Acquire: s.Acquire, Begin: func(context.Context) error { begun++; return nil }})
		var passes sync.WaitGroup
		for _, takes := range []time.Duration{time.Second, 30 * time.Second} {
			passes.Go(func() {
				if _, err := k.Do(t.Context(), true, 0, func(ctx context.Context, _ *Held) error { return wait(ctx, takes) }); err != nil {
					t.Error(err)
				}
			})
		}
		pause(10 * time.Second)
		if _, err := s.Acquire(t.Context(), false); !errors.Is(err, audit.ErrLeaseHeld) {
			t.Errorf("it was given up while a pass is under way: %v", err)
		}
		passes.Wait()
		if _, err := s.Acquire(t.Context(), false); err != nil || s.next != 2 || begun != 1 {
			t.Errorf("%v, %d leases, begun %d times", err, s.next, begun)
		}
	})
}

func TestLostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		k := NewKeeper(Options{TTL: ttl, Acquire: s.Acquire})
		_, err := k.Do(t.Context(), true, 0, func(ctx context.Context, h *Held) error {
			s.steal()
			err := wait(ctx, time.Minute)
			if h.Valid() == nil {
				t.Error("a lost lease is valid")
			}
			return err
		})
		if !errors.Is(err, audit.ErrLeaseLost) {
			t.Errorf("%v", err)
		}
		// It is taken anew as soon as it can be.
		if _, err := k.Do(t.Context(), true, time.Minute, func(context.Context, *Held) error { return nil }); err != nil {
			t.Error(err)
		}
	})
}

// A process that was frozen for longer than its lease must not put when it wakes,
// although nobody has told it yet.
func TestFrozenHolder(t *testing.T) {
	for name, frozen := range map[string]moment{
		"nothing ran": {time.Now().Add(-ttl - time.Millisecond), time.Now().Round(0)},
		"suspended":   {time.Now(), time.Now().Round(0).Add(-time.Minute)}, // the monotonic clock stood still
	} {
		t.Run(name, func(t *testing.T) {
			k := NewKeeper(Options{TTL: ttl, Acquire: (&store{}).Acquire})
			_, err := k.Do(t.Context(), true, 0, func(_ context.Context, h *Held) error {
				if err := h.Valid(); err != nil {
					t.Error(err)
				}
				h.renewed.Store(&frozen)
				return h.Valid()
			})
			if !errors.Is(err, audit.ErrLeaseLost) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestWaitingForTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		s.steal()
		k := NewKeeper(Options{TTL: ttl, Acquire: s.Acquire})
		do := func(ctx context.Context, requestRerun bool, d time.Duration) error {
			_, err := k.Do(ctx, requestRerun, d, func(context.Context, *Held) error { return nil })
			return err
		}
		if err := do(t.Context(), false, 0); !errors.Is(err, audit.ErrLeaseHeld) || s.requests != 0 {
			t.Errorf("%v, %d reruns requested", err, s.requests)
		}
		begin := time.Now()
		if err := do(t.Context(), true, 3*time.Second); !errors.Is(err, audit.ErrLeaseHeld) || s.requests != 1 || time.Since(begin) != 3*time.Second {
			t.Errorf("%v after %s, %d reruns requested", err, time.Since(begin), s.requests)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := do(ctx, true, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		// The holder is gone: its lease runs out.
		if err := do(t.Context(), true, 15*time.Second); err != nil {
			t.Error(err)
		}
	})
}

// A request of another process is told while the lease is held, or at its end.
func TestRerunIsToldOnce(t *testing.T) {
	for name, c := range map[string]struct {
		late, noRerun bool // noRerun: there is no Options.Rerun
		told          int
	}{
		"early": {told: 1}, "late": {late: true}, "early, told at the end": {noRerun: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &store{}
				told := 0
				o := Options{TTL: ttl, Acquire: s.Acquire, Rerun: func() { told++ }}
				if c.noRerun {
					o.Rerun = nil
				}
				k := NewKeeper(o)
				rerun, err := k.Do(t.Context(), true, 0, func(ctx context.Context, _ *Held) error {
					if _, err := s.Acquire(ctx, true); !errors.Is(err, audit.ErrLeaseHeld) {
						t.Error(err)
					}
					if c.late {
						return nil
					}
					return wait(ctx, 2*time.Second)
				})
				if err != nil || rerun != (c.told == 0) || told != c.told {
					t.Errorf("%v, rerun %v, told %d times", err, rerun, told)
				}
				if _, err := s.Acquire(t.Context(), false); err != nil {
					t.Errorf("the lease was not given up: %v", err)
				}
			})
		})
	}
}

// pause lets time pass in a bubble.
func pause(d time.Duration) { <-time.After(d) }

// Requests that come while the lease is released keep it from nobody: it is released until
// no new one has come.
func TestRequestsDuringARelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		n := 3
		s.releasing = func() {
			if n > 0 {
				n--
				s.requests++
			}
		}
		k := NewKeeper(Options{TTL: ttl, Acquire: s.Acquire})
		rerun, err := k.Do(t.Context(), true, 0, func(context.Context, *Held) error { return nil })
		if err != nil || !rerun || s.holder != 0 {
			t.Errorf("rerun %t, %v; holder %d", rerun, err, s.holder)
		}
	})
}
