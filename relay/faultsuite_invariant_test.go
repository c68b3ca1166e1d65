package main

import (
	"bytes"
	"context"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// missing are the ids that Kong holds and that are neither delivered nor kept as undelivered.
func (f *faultRun) missing() (ids []string) {
	for _, id := range f.held() {
		if f.dest.Times(id) == 0 && !f.undelivered[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// held are the ids of what Kong holds now.
func (f *faultRun) held() (ids []string) {
	left := map[string]int{}
	for id := range f.kong.IDs() {
		left[id]++
	}
	for _, id := range f.order {
		if left[f.rows[id].requestID] > 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// check is the invariant: each entry that Kong holds is delivered, or kept as undelivered,
// or new to the ledger; nothing unknown was delivered; and content is intact. The
// ledger is asked before the destination, so that it holds while relays work.
func (f *faultRun) check(step string) {
	f.t.Helper()
	for _, r := range f.relays {
		select {
		case <-r.waited:
			f.t.Fatalf("%s: a relay ended by itself: %v\n%s", step, r.cmd.ProcessState, tail(r.stderr.String(), 4000))
		default:
		}
	}
	ids := f.held()
	entries := make([]audit.Entry, len(ids))
	for i, id := range ids {
		entries[i] = audit.Entry{ID: id, Timestamp: f.times[id]}
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), 3*time.Second)
	outcomes, err := f.ledger.Lookup(ctx, entries)
	cancel()
	if err != nil { // the ledger is what fails: nobody can ask it
		outcomes = make([]audit.Outcome, len(ids))
	}
	var kept []string
	for i, o := range outcomes {
		switch {
		case o == audit.NoOutcome:
		case o == audit.Delivered && f.dest.Times(ids[i]) == 0:
			f.t.Errorf("%s: the ledger has %q as delivered, but it never arrived", step, ids[i])
		case o == audit.Dead, o == audit.Deferred:
			kept = append(kept, ids[i])
		case o != audit.Delivered:
			f.t.Errorf("%s: the ledger has %q as %s", step, ids[i], o)
		}
	}
	if len(kept) > 0 || len(f.undelivered) > 0 {
		f.undelivered = f.deadList()
	}
	for _, id := range kept {
		if !f.undelivered[id] && f.dest.Times(id) == 0 {
			f.t.Errorf("%s: %q is dead or deferred, but it is not kept as undelivered, and it never arrived", step, id)
		}
	}
	f.compare(step)
}

// deadList is what relay dead list shows.
func (f *faultRun) deadList() map[string]bool {
	f.t.Helper()
	r := f.start(nil, "dead", "list", "--json")
	if code := r.wait(f.t); code != 0 {
		f.t.Fatalf("relay dead list ended with %d:\n%s", code, r.stderr.String())
	}
	list := map[string]bool{}
	for line := range bytes.Lines(r.stdout.Bytes()) {
		var l shownUndelivered
		if err := decode(line, &l); err != nil {
			f.t.Fatal(err)
		}
		list[l.Entry.ID] = true
	}
	return list
}

// compare holds the events that came since the last time against their rows.
func (f *faultRun) compare(step string) {
	f.t.Helper()
	events := f.dest.Events()
	for _, e := range events[min(f.checked, len(events)):] {
		want, known := f.rows[e.ID]
		if !known {
			f.t.Errorf("%s: %q arrived, which Kong never had", step, e.ID)
			continue
		}
		if got := eventContent(f.t, e.Data, &want); got.digest() != want.digest() {
			f.t.Errorf("%s: the content of %q is not that of its row: %s", step, e.ID, got.differs(&want))
		}
	}
	f.checked = len(events)
}
