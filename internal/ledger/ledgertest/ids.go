package ledgertest

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func testRecord(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	long := strings.Repeat("x", 100)
	list := []audit.Record{
		Record("a", Noon, audit.Delivered), Record("b", Noon, audit.Dead), Record("c", Noon+86400, audit.Deferred),
		Record("d", Noon, audit.Dropped), Record("e", Noon-86400, audit.Own), Record(long, Noon, audit.Delivered),
		Record("12345", Noon, audit.Delivered), Record("007", Noon, audit.Delivered), Record("", Noon, audit.Delivered),
	}
	var want []audit.Outcome
	for i := range list {
		want = append(want, list[i].Outcome)
	}
	for range 2 { // the second time changes nothing
		Must(t, x.Record(bg(), list))
		for _, l := range []Ledger{x, y} {
			wantOutcomes(t, l, list, want...)
			Equal(t, Outcomes(t, l, audit.Entry{ID: "unknown", Timestamp: Noon}, audit.Entry{ID: "a", Timestamp: Noon + 86400}, audit.Entry{ID: "7", Timestamp: Noon}),
				[]audit.Outcome{audit.NoOutcome, audit.NoOutcome, audit.NoOutcome})
		}
	}
	Equal(t, Outcomes(t, x), []audit.Outcome{})
	Must(t, x.Record(bg(), nil))
}

func testDelivered(t *testing.T, b Backend) {
	x, _, _ := begun(t, b)
	all := []audit.Outcome{audit.Delivered, audit.Dead, audit.Deferred, audit.Dropped, audit.Own}
	for i, first := range all {
		for j, second := range all {
			for _, together := range []bool{false, true} {
				id := fmt.Sprint("id", i, j, together)
				one, two := Record(id, Noon, first), Record(id, Noon, second)
				if together {
					Must(t, x.Record(bg(), []audit.Record{one, two}))
				} else {
					Must(t, x.Record(bg(), []audit.Record{one}))
					Must(t, x.Record(bg(), []audit.Record{two}))
				}
				want := second
				if first == audit.Delivered {
					want = first
				}
				wantOutcomes(t, x, []audit.Record{one}, want)
				u, ok, err := x.UndeliveredEntry(bg(), id)
				Must(t, err)
				if ok != (want == audit.Dead || want == audit.Deferred) || ok && u.Outcome != want {
					t.Fatalf("%v then %v: undelivered entry %v, %v", first, second, ok, u.Outcome)
				}
			}
		}
	}
}

func testAbsurd(t *testing.T, b Backend) {
	x, _, _ := begun(t, b)
	var list []audit.Record
	var want []audit.Outcome
	for i, at := range []int64{
		0, -1, 1, -86400, -86401, 86399, 86400, math.MaxInt64, math.MinInt64, math.MaxInt64 - 1, 253402300799, 253402300800,
		1 << 40, Noon + 100*365*86400,
	} {
		for _, keep := range []time.Duration{0, -time.Hour, math.MinInt64, math.MaxInt64, time.Hour} {
			r := Record(fmt.Sprint("id", i, keep), at, audit.Delivered)
			r.Retention = keep
			list, want = append(list, r), append(want, audit.Delivered)
		}
	}
	Must(t, x.Record(bg(), list))
	wantOutcomes(t, x, list, want...)
	wantOutcomes(t, x, []audit.Record{Record(list[0].ID, Noon, audit.Delivered)}, audit.NoOutcome)
}

func testRefusedRecords(t *testing.T, b Backend) {
	x, _, _ := begun(t, b)
	bad := Record("bad", Noon, audit.Dead)
	bad.Undelivered = nil
	good := Record("good", Noon, audit.Delivered)
	for _, r := range []audit.Record{bad, Record("bad", Noon, audit.NoOutcome), Record("bad", Noon, 99)} {
		if err := x.Record(bg(), []audit.Record{good, r}); err == nil {
			t.Errorf("outcome %d was recorded", r.Outcome)
		}
	}
	wantOutcomes(t, x, []audit.Record{good}, audit.NoOutcome)
}

func testConcurrentRecords(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	var wg sync.WaitGroup
	const users, each, batch = 4, 5, 200
	all := records(users/2*each*batch, audit.Delivered)
	for u := range users {
		wg.Go(func() {
			for k := range each {
				from := (u/2*each + k) * batch // two users record the same
				if err := []Ledger{x, y}[u%2].Record(bg(), all[from:from+batch]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantOutcomes(t, x, all, slices.Repeat([]audit.Outcome{audit.Delivered}, len(all))...)
}

// testModel compares with a ledger that is two maps.
func testModel(t *testing.T, b Backend) {
	x, y, empty := begun(t, b)
	checks := 0
	rapid.Check(t, func(rt *rapid.T) {
		if checks++; checks > 25 { // each costs real writes
			return
		}
		empty()
		Must(t, x.Begin(bg()))
		Must(t, y.Begin(bg()))
		known, stored := map[string]audit.Outcome{}, map[string]audit.Undelivered{}
		ids := rapid.IntRange(0, 900)
		steps := rapid.IntRange(1, 8).Draw(rt, "steps")
		for range steps {
			l := []Ledger{x, y}[rapid.IntRange(0, 1).Draw(rt, "user")]
			first, n := ids.Draw(rt, "first"), rapid.IntRange(0, 700).Draw(rt, "n")
			outcome := audit.Outcome(rapid.IntRange(1, 5).Draw(rt, "outcome"))
			mixed := rapid.Bool().Draw(rt, "mixed")
			if outcome == audit.Dead || outcome == audit.Deferred {
				n = min(n, 40)
			}
			var records []audit.Record
			for i := first; i < first+n; i++ {
				o := outcome
				if mixed && i%5 == 0 {
					o = audit.Delivered
				}
				// An id always has the same timestamp, as Kong's rows do.
				r := Record(ID(i), Noon+int64(i%2)*86400, o)
				records = append(records, r)
				if known[r.ID] == audit.Delivered {
					continue
				}
				known[r.ID] = o
				delete(stored, r.ID)
				if r.Undelivered != nil {
					u := *r.Undelivered
					u.Outcome = o
					stored[r.ID] = u
				}
			}
			Must(t, l.Record(bg(), records))
		}
		var entries []audit.Entry
		var want []audit.Outcome
		for i := range 1700 {
			e := audit.Entry{ID: ID(i), Timestamp: Noon + int64(i%2)*86400}
			entries, want = append(entries, e), append(want, known[e.ID])
		}
		if got := Outcomes(t, y, entries...); !slices.Equal(got, want) {
			rt.Fatalf("outcomes differ")
		}
		got := map[string]audit.Undelivered{}
		for u, err := range x.UndeliveredEntries(bg()) {
			Must(t, err)
			if _, twice := got[u.Entry.ID]; twice {
				rt.Fatalf("u %s twice", u.Entry.ID)
			}
			got[u.Entry.ID] = u
		}
		if !reflect.DeepEqual(got, stored) {
			rt.Fatalf("%d undelivered entries, want %d, or they differ", len(got), len(stored))
		}
		if c, err := x.UndeliveredCounts(bg()); err != nil || c.Dead+c.Deferred != len(stored) {
			rt.Fatalf("counts %+v, %v, of %d undelivered entries", c, err, len(stored))
		}
	})
}
