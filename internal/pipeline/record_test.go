package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// While the ledger does not record, nothing more is put; what was accepted is
// recorded once it does, and not put again.
func TestLedgerThatFailsForAWhile(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, oldest(), func(o *Options) { o.BatchEntries, o.Workers = 5, 3 })
			w.kong.delay, w.destination.delay = delay, 50*time.Millisecond
			from, to := time.Now().Add(200*time.Millisecond+3*delay), time.Now().Add(4*time.Minute)
			var failed time.Time
			w.store.record = func(int, []audit.Record) error {
				if now := time.Now(); now.After(from) && now.Before(to) {
					if failed.IsZero() {
						failed = now
					}
					return errors.New("connection refused")
				}
				return nil
			}
			w.kong.add(span(w.now()-900, 200, 4)...)
			if s := w.pass(Request{Kind: audit.Reconcile}); s.Delivered != 200 {
				t.Errorf("%+v", s)
			}
			w.allOnce()
			for _, at := range w.destination.times {
				if at.After(failed) && at.Before(to) {
					t.Errorf("put %s after the ledger had failed", at.Sub(failed))
				}
			}
			if n := w.logs.count("ledger does not record"); n != 1 {
				t.Errorf("%d warnings", n)
			}
		})
	}
}

// A ledger that is away for longer than the lease lasts ends the pass. What was accepted is
// recorded all the same once it is back, without the lease, and not put again.
func TestLedgerAwayForLongerThanTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.BatchEntries, o.Workers = 5, 3 })
		w.kong.delay, w.destination.delay = time.Second, 50*time.Millisecond
		down := errors.New("connection refused")
		from, to := time.Now().Add(3*time.Second), time.Now().Add(time.Minute)
		away := func() error {
			if now := time.Now(); now.After(from) && now.Before(to) {
				return down
			}
			return nil
		}
		var refused atomic.Int64
		w.store.record = func(int, []audit.Record) error {
			err := away()
			if err != nil {
				refused.Add(1)
			}
			return err
		}
		w.store.renew = func(context.Context) error { return away() }
		w.kong.add(span(w.now()-900, 200, 4)...)
		s, err := w.run(Request{Kind: audit.Reconcile})
		if !errors.Is(err, audit.ErrLeaseLost) || s.Complete || s.Delivered == 0 || time.Now().Before(to) {
			t.Errorf("%v, %+v", err, s)
		}
		if refused.Load() == 0 {
			t.Error("nothing had to wait for the ledger")
		}
		w.pass(Request{Kind: audit.Reconcile, Wait: 15 * time.Second})
		w.allOnce()
	})
}

var errRefused = audit.SettingsErrorf("allow the commands", "NOPERM this user has no permissions")

// A ledger that refuses everything ends the pass at once. What was accepted is
// recorded by the next pass, and not put again.
func TestLedgerThatRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest(), func(o *Options) { o.BatchEntries, o.Workers = 5, 2 })
		w.destination.delay = 10 * time.Millisecond
		w.store.record = func(int, []audit.Record) error { return errRefused }
		w.kong.add(span(w.now()-900, 200, 4)...)
		for range 3 {
			begin := time.Now()
			s, err := w.run(Request{Kind: audit.Reconcile})
			if !audit.NeedsPerson(err) || audit.Hint(err) == "" || s.Delivered != 0 || s.Complete {
				t.Errorf("%v, %+v", err, s)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			if n := w.destination.putCalls(); n > 3 {
				t.Errorf("%d calls", n)
			}
		}
		w.store.record = nil
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
	})
}

// A ledger that refuses some records: the others are recorded, the pass fails with
// the reason, and nothing is put again.
func TestLedgerThatRefusesSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		ids := w.kong.add(span(w.now()-900, 100, 4)...)
		bad := map[string]bool{ids[3]: true, ids[60]: true}
		w.store.record = func(_ int, records []audit.Record) error {
			for _, r := range records {
				if bad[r.ID] {
					return errRefused
				}
			}
			return nil
		}
		begin := time.Now()
		for range 3 {
			if s, err := w.run(Request{Kind: audit.Reconcile}); !audit.NeedsPerson(err) || s.Complete {
				t.Errorf("%v, %+v", err, s)
			}
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
		if n := w.store.count(audit.Delivered); n < 9 { // the others of a page
			t.Errorf("%d recorded", n)
		}
		w.store.record = nil
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
	})
}

// An undelivered entry that the ledger cannot store whole is stored without its
// payload, and stops nobody.
func TestUndeliveredThatTheLedgerRefuses(t *testing.T) {
	t.Run("with an answer", func(t *testing.T) { testRefusedUndelivered(t, 2000, errRefused) })
	t.Run("by cutting the connection", func(t *testing.T) { testRefusedUndelivered(t, 2_000_000, errors.New("broken pipe")) })
}

func testRefusedUndelivered(t *testing.T, size int, refusal error) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.add(span(w.now()-900, 50, 4)...)
		w.kong.addEntry(audit.Entry{RequestID: "huge", Timestamp: w.now() - 500, Payload: string(make([]byte, size))})
		w.destination.put = func(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
			verdicts := w.destination.accept(nil)
			for i := range entries {
				if entries[i].ID == "huge" {
					verdicts = append(verdicts, audit.Verdict{Status: audit.Rejected, Code: "InvalidSize", Reason: "too large"})
				} else {
					verdicts = append(verdicts, w.destination.accept(entries[i:i+1])...)
				}
			}
			return verdicts, nil
		}
		w.store.record = func(_ int, records []audit.Record) error {
			for _, r := range records {
				if r.Undelivered != nil && len(r.Undelivered.Entry.Payload) > 1000 {
					return refusal
				}
			}
			return nil
		}
		begin := time.Now()
		if s := w.pass(Request{Kind: audit.Reconcile}); s.Delivered != 50 || s.Dead != 1 || time.Since(begin) > 10*time.Second {
			t.Errorf("%+v after %s", s, time.Since(begin))
		}
		if u := w.store.letters["huge"]; u.Outcome != audit.Dead || u.Entry.Payload != "" || !strings.Contains(u.Reason, fmt.Sprint(size, " bytes")) {
			t.Errorf("%+v", u)
		}
		if n := w.logs.count("stored without its payload, the ledger"); n != 1 {
			t.Errorf("%d warnings", n)
		}
	})
}

// A ledger that stays away ends the pass, and nothing is put any more once it was given
// up; what was accepted is repeated, not lost.
func TestLedgerThatStaysAway(t *testing.T) {
	for range 10 { // who of those that wait goes on first is a matter of chance
		synctest.Test(t, ledgerStaysAway)
	}
}

func ledgerStaysAway(t *testing.T) {
	w := newWorld(t, oldest(), func(o *Options) { o.RecordFor = time.Minute })
	w.store.record = func(int, []audit.Record) error { return errors.New("connection refused") }
	w.kong.add(span(w.now()-900, 100, 4)...)
	begin := time.Now()
	s, err := w.run(Request{Kind: audit.Reconcile})
	if err == nil || s.Delivered != 0 || s.Failed == 0 || w.store.saved().FullAt != 0 {
		t.Errorf("%v, %+v", err, s)
	}
	if took := time.Since(begin); took < time.Minute || took > 65*time.Second {
		t.Errorf("it took %s", took)
	}
	if last := slices.MaxFunc(w.destination.times, time.Time.Compare); last.Sub(begin) > time.Minute {
		t.Errorf("%d calls, the last one after %s: the ledger had been given up", len(w.destination.times), last.Sub(begin))
	}
	w.store.record = nil
	w.pass(Request{Kind: audit.Reconcile})
	w.allDelivered()
}

func TestLookupThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		n := 0
		w.store.lookup = func() error {
			if n++; n == 3 {
				return errors.New("connection reset")
			}
			return nil
		}
		w.kong.add(span(w.now()-900, 100, 4)...)
		if s, err := w.run(Request{Kind: audit.Reconcile}); err == nil || s.Complete {
			t.Errorf("%v, %+v", err, s)
		}
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
	})
}

// Marks that cannot be saved for a while do not end the pass.
func TestMarksThatAreNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.delay = 2 * time.Second
		n := 0
		w.store.set = func() error {
			if n++; n < 4 {
				return errors.New("connection reset")
			}
			return nil
		}
		w.kong.add(span(w.now()-900, 100, 4)...)
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
		if n < 4 || w.store.saved().FullAt == 0 {
			t.Errorf("%d saves, marks %+v", n, w.store.saved())
		}
	})
}

// A ledger that is emptied under a pass: everything again, nothing lost.
func TestLedgerEmptied(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		for _, at := range []time.Duration{0, time.Second, 3500 * time.Millisecond, 9 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newKong(), func(o *Options) { o.BatchEntries = 5 })
				w.kong.delay, w.destination.delay = 300*time.Millisecond, 700*time.Millisecond
				w.kong.add(span(w.now()-900, 100, 4)...)
				w.pass(Request{Kind: audit.Reconcile})
				w.kong.add(span(w.now(), 20, 1)...)
				timer := time.AfterFunc(at, w.store.empty)
				defer timer.Stop()
				s := w.pass(Request{Kind: audit.Reconcile, Full: true})
				if !s.Full {
					t.Errorf("%+v", s)
				}
				w.advance(20 * time.Second)
				w.pass(Request{Kind: audit.Tail})
				w.allDelivered()
				for _, e := range w.kong.all() {
					if w.store.outcome(e.ID) != audit.Delivered {
						t.Errorf("%s is %s in the ledger", e.ID, w.store.outcome(e.ID))
					}
				}
			})
		}
	})
}

// A ledger that is emptied again and again: an error, not a loop.
func TestLedgerEmptiedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oldest())
		w.kong.add(w.now())
		w.store.lookup = func() error { return audit.ErrLedgerReplaced }
		if s, err := w.run(Request{Kind: audit.Reconcile}); !errors.Is(err, audit.ErrLedgerReplaced) || s.Complete {
			t.Errorf("%v, %+v", err, s)
		}
	})
}
