package ledgertest

import (
	"cmp"
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
	Equal(t, Value(x.UndeliveredCounts(bg()))(t), audit.UndeliveredCounts{})
	_, ok, err := x.UndeliveredEntry(bg(), "a")
	Must(t, err)
	Equal(t, ok, false)

	// 350 entries of few moments, so that many are equal in time.
	var want, got []string
	records := records(350, audit.Dead)
	for i := range records {
		if i%7 == 0 {
			records[i].Outcome = audit.Deferred
		}
		records[i].Undelivered.Since = time.UnixMilli(int64(Noon*1000 - i%3*1000 + 7)).UTC()
	}
	Must(t, x.Record(bg(), records))
	Must(t, x.Record(bg(), records))
	slices.SortFunc(records, func(p, q audit.Record) int {
		return cmp.Or(cmp.Compare(q.Outcome, p.Outcome), p.Undelivered.Since.Compare(q.Undelivered.Since), strings.Compare(p.ID, q.ID))
	})
	for _, r := range records {
		want = append(want, r.ID)
	}
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
	Equal(t, Value(y.UndeliveredCounts(bg()))(t), audit.UndeliveredCounts{Dead: 300, Deferred: 50, OldestDeferred: time.UnixMilli(Noon*1000 - 2000 + 7)})

	// Deferred turns dead, dead is delivered: no entry stays behind in either list.
	for i := range records {
		if records[i].Outcome == audit.Deferred {
			records[i].Outcome = audit.Dead
		} else {
			records[i] = Record(records[i].ID, Noon, audit.Delivered)
		}
	}
	Must(t, x.Record(bg(), records))
	wantCounts(t, y, 50, 0)
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
	Must(t, x.Record(bg(), records(450, audit.Dead)))
	n := 0
	for entry, err := range x.UndeliveredEntries(bg()) {
		Must(t, err)
		Must(t, y.Record(bg(), []audit.Record{Record(entry.Entry.ID, Noon, audit.Dropped)}))
		n++
	}
	Equal(t, n, 450)
	wantCounts(t, x, 0, 0)
}

func testLargeUndelivered(t *testing.T, b Backend) {
	x, _, _ := begun(t, b)
	records := records(4, audit.Deferred)
	for i := range records {
		records[i].Undelivered.Entry.Payload = strings.Repeat(fmt.Sprint(i), 3<<20)
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
