package ledgertest

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func testMarks(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	Equal(t, Value(x.Marks(bg()))(t), audit.Marks{})
	marks := audit.Marks{
		Cursor: Noon, ReconciledThrough: 1, FullAt: 2, Completed: 4,
		Resume: &audit.Resume{Order: "none", Started: 5, Floor: 6, From: 7, Offset: "o", Newest: 8, Full: true},
	}
	lease := Value(x.Acquire(bg(), true))(t)
	Must(t, lease.SetMarks(bg(), marks))
	Equal(t, Value(y.Marks(bg()))(t), marks)
	Equal(t, Value(lease.Release(bg()))(t), false)
	WantErr(t, lease.SetMarks(bg(), audit.Marks{}), audit.ErrLeaseLost)
	next := Value(y.Acquire(bg(), true))(t)
	WantErr(t, lease.SetMarks(bg(), audit.Marks{}), audit.ErrLeaseLost)
	Equal(t, Value(x.Marks(bg()))(t), marks)
	Must(t, next.SetMarks(bg(), audit.Marks{Cursor: 1}))
	Equal(t, Value(x.Marks(bg()))(t), audit.Marks{Cursor: 1})
}

func testLease(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	lease := Value(x.Acquire(bg(), true))(t)
	_, err := y.Acquire(bg(), true)
	WantErr(t, err, audit.ErrLeaseHeld)
	Equal(t, Value(lease.Release(bg()))(t), true)
	Equal(t, Value(lease.Release(bg()))(t), false)
	_, err = lease.Release(bg())
	WantErr(t, err, audit.ErrLeaseLost)
	next := Value(y.Acquire(bg(), true))(t)
	_, err = lease.Renew(bg())
	WantErr(t, err, audit.ErrLeaseLost)
	_, err = lease.Release(bg())
	WantErr(t, err, audit.ErrLeaseLost)
	Equal(t, Value(next.Renew(bg()))(t), false)
	Equal(t, Value(next.Release(bg()))(t), false)
}

func testLeaseRunsOut(t *testing.T, b Backend) {
	x, y, _ := b.Open(t, 150*time.Millisecond)
	Must(t, x.Begin(bg()))
	Must(t, y.Begin(bg()))
	start := time.Now()
	lease := Value(x.Acquire(bg(), true))(t)
	Eventually(t, func() error {
		_, err := y.Acquire(bg(), true)
		return err
	})
	if took := time.Since(start); took < 140*time.Millisecond {
		t.Errorf("lease of 150 ms ended after %v", took)
	}
	_, err := lease.Renew(bg())
	WantErr(t, err, audit.ErrLeaseLost)
	WantErr(t, lease.SetMarks(bg(), audit.Marks{Cursor: 1}), audit.ErrLeaseLost)
	_, err = lease.Release(bg())
	WantErr(t, err, audit.ErrLeaseLost)
}

func testLeaseLeft(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	Equal(t, Value(y.LeaseLeft(bg()))(t), time.Duration(0))
	lease := Value(x.Acquire(bg(), true))(t)
	if left := Value(y.LeaseLeft(bg()))(t); left <= 0 || left > time.Minute {
		t.Errorf("%v are left of a lease of a minute", left)
	}
	Equal(t, Value(lease.Renew(bg()))(t), false) // it requests none
	Equal(t, Value(lease.Release(bg()))(t), false)
	Equal(t, Value(y.LeaseLeft(bg()))(t), time.Duration(0))
}

func testRerun(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	lease := Value(x.Acquire(bg(), true))(t)
	Equal(t, Value(lease.Renew(bg()))(t), false)
	_, err := y.Acquire(bg(), false)
	WantErr(t, err, audit.ErrLeaseHeld)
	Equal(t, Value(lease.Renew(bg()))(t), false)
	for _, request := range []bool{true, true, false} {
		_, err := y.Acquire(bg(), request)
		WantErr(t, err, audit.ErrLeaseHeld)
	}
	Equal(t, Value(lease.Renew(bg()))(t), true)
	Equal(t, Value(lease.Renew(bg()))(t), false)
	_, err = y.Acquire(bg(), true)
	WantErr(t, err, audit.ErrLeaseHeld)
	Equal(t, Value(lease.Release(bg()))(t), true)
	Equal(t, Value(lease.Renew(bg()))(t), false)
	Equal(t, Value(lease.Release(bg()))(t), false)
	// A request to one holder is not one to the next.
	next := Value(y.Acquire(bg(), true))(t)
	Equal(t, Value(next.Renew(bg()))(t), false)
	Equal(t, Value(next.Release(bg()))(t), false)
}

// testNoRerunOverlooked has many users who each want a pass to begin after they
// asked. In the end the last wish has been served, whoever served it.
func testNoRerunOverlooked(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	var wished, served, passes atomic.Int64
	var wg sync.WaitGroup
	user := func(l Ledger, look bool) {
		for range 60 {
			wish := wished.Add(1)
			lease, err := l.Acquire(bg(), true)
			if errors.Is(err, audit.ErrLeaseHeld) {
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			for again := true; again; {
				now := wished.Load() // a pass that begins here sees all wishes up to now
				if now < wish {
					t.Errorf("pass before its wish")
				}
				if passes.Add(1); served.Load() < now {
					served.Store(now) // only the holder writes
				}
				runtime.Gosched()
				if look {
					if again, err = lease.Renew(bg()); err != nil {
						t.Error(err)
						return
					} else if again {
						continue
					}
				}
				if again, err = lease.Release(bg()); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}
	for i := range 6 {
		l := x
		if i%2 == 1 {
			l = y
		}
		wg.Go(func() { user(l, i%3 == 0) })
	}
	wg.Wait()
	if served.Load() != wished.Load() {
		t.Errorf("wishes up to %d were served, of %d", served.Load(), wished.Load())
	}
	t.Logf("%d wishes, %d passes", wished.Load(), passes.Load())
}
