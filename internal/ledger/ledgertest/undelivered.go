package ledgertest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func testUndelivered(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	var none time.Time
	dead, deferred, err := x.OldestUndelivered(bg())
	Must(t, err)
	Equal(t, []time.Time{dead, deferred}, []time.Time{none, none})
	_, ok, err := x.UndeliveredEntry(bg(), "a")
	Must(t, err)
	Equal(t, ok, false)

	// 350 entries of few moments, so that many are equal in time.
	var want []string
	var records []audit.Record
	for i := range 350 {
		outcome := audit.Dead
		if i%7 == 0 {
			outcome = audit.Deferred
		}
		r := Record(ID(i), Noon, outcome)
		r.Undelivered.Since = time.UnixMilli(int64(Noon*1000 - i%3*1000 + 7)).UTC()
		records = append(records, r)
	}
	Must(t, x.Record(bg(), records))
	Must(t, x.Record(bg(), records))
	slices.SortFunc(records, func(p, q audit.Record) int {
		if p.Outcome != q.Outcome {
			return int(q.Outcome) - int(p.Outcome)
		}
		if c := p.Undelivered.Since.Compare(q.Undelivered.Since); c != 0 {
			return c
		}
		return strings.Compare(p.ID, q.ID)
	})
	for _, r := range records {
		want = append(want, r.ID)
	}
	var got []string
	for entry, err := range y.UndeliveredEntries(bg()) {
		Must(t, err)
		got = append(got, entry.Entry.ID)
	}
	Equal(t, got, want)

	entry, ok, err := y.UndeliveredEntry(bg(), records[0].ID)
	Must(t, err)
	wantEntry := *records[0].Undelivered
	wantEntry.Outcome = records[0].Outcome
	if !ok || !reflect.DeepEqual(entry, wantEntry) {
		t.Fatalf("entry %v %+v, want %+v", ok, entry, wantEntry)
	}
	Equal(t, Value(y.HasUndelivered(bg(), []string{records[0].ID, "unknown", records[1].ID}))(t), []bool{true, false, true})
	Equal(t, len(Value(y.HasUndelivered(bg(), nil))(t)), 0)
	nDead, nDeferred, err := y.UndeliveredCounts(bg())
	Must(t, err)
	Equal(t, []int{nDead, nDeferred}, []int{300, 50})
	dead, deferred, err = y.OldestUndelivered(bg())
	Must(t, err)
	if at := int64(Noon*1000 - 2000 + 7); dead.UnixMilli() != at || deferred.UnixMilli() != at {
		t.Errorf("oldest at %v and %v", dead, deferred)
	}

	// Deferred turns dead, dead is delivered: no entry stays behind in either list.
	for i := range records {
		if records[i].Outcome == audit.Deferred {
			records[i].Outcome = audit.Dead
		} else {
			records[i] = Record(records[i].ID, Noon, audit.Delivered)
		}
	}
	Must(t, x.Record(bg(), records))
	nDead, nDeferred, err = y.UndeliveredCounts(bg())
	Must(t, err)
	Equal(t, []int{nDead, nDeferred}, []int{50, 0})
	n := 0
	for entry, err := range y.UndeliveredEntries(bg()) {
		Must(t, err)
		Equal(t, entry.Outcome, audit.Dead)
		if n++; n == 10 {
			break
		}
	}
	Equal(t, n, 10)
}

func testUndeliveredRemoved(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	var records []audit.Record
	for i := range 450 {
		records = append(records, Record(ID(i), Noon, audit.Dead))
	}
	Must(t, x.Record(bg(), records))
	n := 0
	for entry, err := range x.UndeliveredEntries(bg()) {
		Must(t, err)
		Must(t, y.Record(bg(), []audit.Record{Record(entry.Entry.ID, Noon, audit.Dropped)}))
		n++
	}
	Equal(t, n, 450)
	dead, deferred, err := x.UndeliveredCounts(bg())
	Must(t, err)
	Equal(t, []int{dead, deferred}, []int{0, 0})
}

func testLargeUndelivered(t *testing.T, b Backend) {
	x, _, _ := begun(t, b)
	var records []audit.Record
	for i := range 4 {
		r := Record(ID(i), Noon, audit.Deferred)
		r.Undelivered.Entry.Payload = strings.Repeat(fmt.Sprint(i), 3<<20)
		records = append(records, r)
	}
	Must(t, x.Record(bg(), records))
	n := 0
	for entry, err := range x.UndeliveredEntries(bg()) {
		Must(t, err)
		Equal(t, len(entry.Entry.Payload), 3<<20)
		n++
	}
	Equal(t, n, 4)
}
