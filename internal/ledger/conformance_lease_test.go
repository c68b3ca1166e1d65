package ledger

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func testMarks(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	equal(t, value(x.Marks(bg()))(t), audit.Marks{})
	marks := audit.Marks{
		Cursor: noon, ReconciledThrough: 1, FullAt: 2, Completed: 4,
		Resume: &audit.Resume{Order: "none", Started: 5, Floor: 6, From: 7, Offset: "o", Newest: 8, Full: true},
	}
	wantErr(t, x.SetMarks(bg(), "", marks), audit.ErrLeaseLost)
	wantErr(t, x.SetMarks(bg(), "someone", marks), audit.ErrLeaseLost)
	token := value(x.Acquire(bg(), true))(t)
	must(t, x.SetMarks(bg(), token, marks))
	wantErr(t, x.SetMarks(bg(), token+"x", audit.Marks{}), audit.ErrLeaseLost)
	equal(t, value(y.Marks(bg()))(t), marks)
	equal(t, value(x.Release(bg(), token))(t), false)
	wantErr(t, x.SetMarks(bg(), token, audit.Marks{}), audit.ErrLeaseLost)
	equal(t, value(y.Marks(bg()))(t), marks)
}

func testLease(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	token := value(x.Acquire(bg(), true))(t)
	_, err := y.Acquire(bg(), true)
	wantErr(t, err, audit.ErrLeaseHeld)
	must(t, x.Renew(bg(), token))
	wantErr(t, y.Renew(bg(), "other"), audit.ErrLeaseLost)
	_, err = y.Word(bg(), "other")
	wantErr(t, err, audit.ErrLeaseLost)
	_, err = y.Release(bg(), "other")
	wantErr(t, err, audit.ErrLeaseLost)
	equal(t, value(x.Release(bg(), token))(t), true)
	equal(t, value(x.Release(bg(), token))(t), false)
	_, err = x.Release(bg(), token)
	wantErr(t, err, audit.ErrLeaseLost)
	next := value(y.Acquire(bg(), true))(t)
	if next == token {
		t.Error("the same token twice")
	}
	wantErr(t, x.Renew(bg(), token), audit.ErrLeaseLost)
	equal(t, value(y.Release(bg(), next))(t), false)
}

func testLeaseRunsOut(t *testing.T, b backend) {
	x, y, _ := b.open(t, 150*time.Millisecond)
	value(x.Begin(bg()))(t)
	value(y.Begin(bg()))(t)
	start := time.Now()
	token := value(x.Acquire(bg(), true))(t)
	var next string
	eventually(t, func() (err error) {
		next, err = y.Acquire(bg(), true)
		return err
	})
	if took := time.Since(start); took < 140*time.Millisecond {
		t.Errorf("lease of 150 ms ended after %v", took)
	}
	wantErr(t, x.Renew(bg(), token), audit.ErrLeaseLost)
	wantErr(t, x.SetMarks(bg(), token, audit.Marks{Cursor: 1}), audit.ErrLeaseLost)
	_, err := x.Release(bg(), token)
	wantErr(t, err, audit.ErrLeaseLost)
	if next == "" {
		t.Error("no token")
	}
}

func testLeaseLeft(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	equal(t, value(y.LeaseLeft(bg()))(t), time.Duration(0))
	token := value(x.Acquire(bg(), true))(t)
	if left := value(y.LeaseLeft(bg()))(t); left <= 0 || left > time.Minute {
		t.Errorf("%v are left of a lease of a minute", left)
	}
	equal(t, value(x.Word(bg(), token))(t), false) // a look is no word
	equal(t, value(x.Release(bg(), token))(t), false)
	equal(t, value(y.LeaseLeft(bg()))(t), time.Duration(0))
}

func testWord(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	token := value(x.Acquire(bg(), true))(t)
	equal(t, value(x.Word(bg(), token))(t), false)
	_, err := y.Acquire(bg(), false)
	wantErr(t, err, audit.ErrLeaseHeld)
	equal(t, value(x.Word(bg(), token))(t), false)
	for _, word := range []bool{true, true, false} {
		_, err := y.Acquire(bg(), word)
		wantErr(t, err, audit.ErrLeaseHeld)
	}
	equal(t, value(x.Word(bg(), token))(t), true)
	equal(t, value(x.Word(bg(), token))(t), false)
	_, err = y.Acquire(bg(), true)
	wantErr(t, err, audit.ErrLeaseHeld)
	equal(t, value(x.Release(bg(), token))(t), true)
	equal(t, value(x.Word(bg(), token))(t), false)
	must(t, x.Renew(bg(), token))
	equal(t, value(x.Release(bg(), token))(t), false)
	// Word that was left for a pass that has ended is none for the next one.
	next := value(y.Acquire(bg(), true))(t)
	equal(t, value(y.Word(bg(), next))(t), false)
	equal(t, value(y.Release(bg(), next))(t), false)
}

// testNoWordOverlooked has many users who each want a pass to begin after they
// asked. In the end the last wish has been served, whoever served it.
func testNoWordOverlooked(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	var wished, served, passes atomic.Int64
	var wg sync.WaitGroup
	user := func(l ledger, look bool) {
		for range 60 {
			wish := wished.Add(1)
			token, err := l.Acquire(bg(), true)
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
					if again, err = l.Word(bg(), token); err != nil {
						t.Error(err)
						return
					} else if again {
						continue
					}
				}
				if again, err = l.Release(bg(), token); err != nil {
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
