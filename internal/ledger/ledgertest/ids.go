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
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

func testRecord(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	long := strings.Repeat("x", 100)
	records := []audit.Record{
		Record("a", Noon, audit.Delivered), Record("b", Noon, audit.Dead), Record("c", Noon+86400, audit.Deferred),
		Record("d", Noon, audit.Dropped), Record("e", Noon-86400, audit.Own), Record(long, Noon, audit.Delivered),
		Record("12345", Noon, audit.Delivered), Record("007", Noon, audit.Delivered), Record("", Noon, audit.Delivered),
	}
	for range 2 { // the second time changes nothing
		Must(t, x.Record(bg(), records))
		for _, l := range []Ledger{x, y} {
			entries := []audit.Entry{{ID: "unknown", Timestamp: Noon}, {ID: "a", Timestamp: Noon + 86400}, {ID: "7", Timestamp: Noon}}
			want := []audit.Outcome{audit.NoOutcome, audit.NoOutcome, audit.NoOutcome}
			for i := range records {
				entries = append(entries, audit.Entry{ID: records[i].ID, Timestamp: records[i].Timestamp})
				want = append(want, records[i].Outcome)
			}
			Equal(t, Outcomes(t, l, entries...), want)
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
				Equal(t, Outcomes(t, x, audit.Entry{ID: id, Timestamp: Noon}), []audit.Outcome{want})
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
	var entries []audit.Entry
	var records []audit.Record
	for i, at := range []int64{
		0, -1, 1, -86400, -86401, 86399, 86400, math.MaxInt64, math.MinInt64, math.MaxInt64 - 1, 253402300799, 253402300800,
		1 << 40, Noon + 100*365*86400,
	} {
		for _, keep := range []time.Duration{0, -time.Hour, math.MinInt64, math.MaxInt64, time.Hour} {
			r := Record(fmt.Sprint("id", i, keep), at, audit.Delivered)
			r.Retention = keep
			records = append(records, r)
			entries = append(entries, audit.Entry{ID: r.ID, Timestamp: at})
		}
	}
	Must(t, x.Record(bg(), records))
	for i, got := range Outcomes(t, x, entries...) {
		if got != audit.Delivered {
			t.Errorf("%s at %d: %v", entries[i].ID, entries[i].Timestamp, got)
		}
	}
	Equal(t, Outcomes(t, x, audit.Entry{ID: entries[0].ID, Timestamp: Noon}), []audit.Outcome{audit.NoOutcome})
}

func testRefusedRecords(t *testing.T, b Backend) {
	x, _, _ := begun(t, b)
	bad := Record("bad", Noon, audit.Dead)
	bad.Undelivered = nil
	for _, r := range []audit.Record{bad, Record("bad", Noon, audit.NoOutcome), Record("bad", Noon, 99)} {
		if err := x.Record(bg(), []audit.Record{Record("good", Noon, audit.Delivered), r}); err == nil {
			t.Errorf("outcome %d was recorded", r.Outcome)
		}
	}
	Equal(t, Outcomes(t, x, audit.Entry{ID: "good", Timestamp: Noon}), []audit.Outcome{audit.NoOutcome})
}

func testConcurrentRecords(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	var wg sync.WaitGroup
	const users, each, batch = 4, 5, 200
	for u := range users {
		l := x
		if u%2 == 1 {
			l = y
		}
		wg.Go(func() {
			for k := range each {
				var records []audit.Record
				for i := range batch {
					n := (u/2*each+k)*batch + i // two users record the same
					records = append(records, Record(ID(n), Noon, audit.Delivered))
				}
				if err := l.Record(bg(), records); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var entries []audit.Entry
	for n := range users / 2 * each * batch {
		entries = append(entries, audit.Entry{ID: ID(n), Timestamp: Noon})
	}
	for i, got := range Outcomes(t, x, entries...) {
		if got != audit.Delivered {
			t.Fatalf("%s: %v", entries[i].ID, got)
		}
	}
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
		type place struct {
			day int64
			id  string
		}
		known, stored := map[place]audit.Outcome{}, map[string]audit.Undelivered{}
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
				p := place{ledger.DayOf(r.Timestamp), r.ID}
				if known[p] == audit.Delivered {
					continue
				}
				known[p] = o
				delete(stored, r.ID)
				if r.Undelivered != nil && (o == audit.Dead || o == audit.Deferred) {
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
			entries, want = append(entries, e), append(want, known[place{ledger.DayOf(e.Timestamp), e.ID}])
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
		if dead, deferred, err := x.UndeliveredCounts(bg()); err != nil || dead+deferred != len(stored) {
			rt.Fatalf("counts %d and %d, %v, of %d undelivered entries", dead, deferred, err, len(stored))
		}
	})
}
