package ledgertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func testOutages(t *testing.T, b Backend) {
	a, other, _ := b.Open(t, time.Minute)
	now := time.Now().UTC().Truncate(time.Second)
	expect := func(l Ledger, since time.Time, want ...audit.Outage) {
		t.Helper()
		list := Value(l.Outages(bg(), since))(t)
		if fmt.Sprint(list) != fmt.Sprint(want) {
			t.Errorf("got  %v\nwant %v", list, want)
		}
	}
	expect(a, time.Time{})
	first := audit.Outage{ID: "a", Dependency: "kong", Cause: "refused", From: now.Add(-time.Hour), Seen: now.Add(-time.Hour)}
	Must(t, a.PutOutage(bg(), first))
	expect(other, time.Time{}, first)
	first.To, first.Seen, first.Waited, first.CompleteAt = now.Add(-time.Minute), now.Add(-time.Minute), 3, now
	second := audit.Outage{ID: "b", Dependency: "ledger", Cause: "<gone>", From: now.Add(-time.Second), Seen: now}
	Must(t, other.PutOutage(bg(), second))
	Must(t, other.PutOutage(bg(), first))
	Must(t, other.PutOutage(bg(), first))
	expect(a, time.Time{}, first, second)
	expect(a, now.Add(-time.Minute), first, second)
	expect(a, now.Add(-30*time.Second), second)

	// One that is older than 400 days is forgotten with the next.
	ancient := audit.Outage{ID: "c", From: now.Add(-401 * 24 * time.Hour), Seen: now}
	Must(t, a.PutOutage(bg(), ancient))
	Must(t, a.PutOutage(bg(), second))
	expect(a, time.Time{}, first, second)
}
