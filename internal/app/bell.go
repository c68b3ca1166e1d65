package app

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// MissingAfter is the time after which an announced id counts as missing.
const MissingAfter = 30 * time.Second

const (
	forgetAfter = 24 * time.Hour
	maxWaiting  = 10_000
	maxEcho     = 5 * time.Second
	firstEcho   = 100 * time.Millisecond
	// Most rows appear within a second: that long two pulls are no further apart.
	quickEcho = 150 * time.Millisecond
	quickFor  = time.Second
	// How long a trigger is followed that named no id: nobody knows when to stop.
	blindFor = 7 * time.Second

	// Two pulls are at least so far apart; while many ids are waited for, one pull
	// serves many of them, and the longer time holds.
	spacing        = 100 * time.Millisecond
	crowdedSpacing = 300 * time.Millisecond
	crowd          = 20
)

// Bell decides when to pull. Triggers ring it; it gathers them for a moment, asks
// for one pull for all of them, and for further ones after growing waits until
// the ids that were announced have shown up in the log. Kong writes a row some
// tenths of a second after its answer.
//
// It is safe for concurrent use.
type Bell struct {
	debounce time.Duration
	now      func() time.Time
	Wake     chan struct{}        // has one element after a ring
	Own      func(id string) bool // reports an id of the relay's own reads

	mu      sync.Mutex
	waiting map[string]time.Time // announced and not seen, for up to 30 s
	missing map[string]time.Time // for longer
	next    time.Time            // when to pull; zero: not at all
	last    time.Time            // when the last pull was asked for
	gap     time.Duration        // between that one and the next
	rung    time.Time            // when it was last rung
	look    bool                 // a trigger without ids has had no pull yet
	blind   time.Time            // until when pulls are made for one that has had its first
	seen    map[string]bool      // ids that the log showed, to be struck off the ledger's list
	shown   map[string]time.Time // announced and seen, until they are delivered
}

// NewBell returns a bell that gathers triggers for a time before the first pull.
func NewBell(debounce time.Duration) *Bell {
	return &Bell{
		debounce: debounce, now: time.Now, Wake: make(chan struct{}, 1), Own: func(string) bool { return false }, gap: firstEcho,
		waiting: map[string]time.Time{}, missing: map[string]time.Time{}, seen: map[string]bool{}, shown: map[string]time.Time{},
	}
}

// Ring asks for a pull soon. No ids mean: look now.
func (b *Bell) Ring(ids []string, at time.Time) {
	b.mu.Lock()
	for _, id := range ids {
		if len(b.waiting) < maxWaiting && b.missing[id].IsZero() {
			b.waiting[id] = at
		}
	}
	b.look = b.look || len(ids) == 0
	b.rung = b.now()
	soon := b.now().Add(b.debounce)
	if busy := b.last.Add(b.apart()); busy.After(soon) {
		soon = busy
	}
	b.gap = firstEcho
	if b.next.IsZero() || soon.Before(b.next) {
		b.next = soon
	}
	b.mu.Unlock()
	select {
	case b.Wake <- struct{}{}:
	default:
	}
}

// Due tells whether a pull is to be made now, and if so takes that as done.
func (b *Bell) Due() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if b.next.IsZero() || now.Before(b.next) {
		return false
	}
	// A relay that reads through the route that rings it must not ring itself for ever.
	for id := range b.waiting {
		if b.Own(id) {
			delete(b.waiting, id)
			b.seen[id] = true
		}
	}
	if !b.searching(now) {
		b.next = time.Time{}
		return false
	}
	if b.look {
		b.look, b.blind = false, now.Add(blindFor)
	}
	b.last = now
	b.schedule()
	return true
}

// searching tells whether there is anything to look for. b.mu is held.
func (b *Bell) searching(now time.Time) bool {
	return len(b.waiting) > 0 || b.look || now.Before(b.blind)
}

// Wait returns once a pull is to be made, and takes it as done; or with ctx's error.
func (b *Bell) Wait(ctx context.Context) error {
	for !b.Due() {
		d := b.Until()
		if d < 0 {
			d = time.Minute // until it is rung
		}
		timer := time.NewTimer(d)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-b.Wake:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// schedule plans the pull after one that is being made. b.mu is held.
func (b *Bell) schedule() {
	b.next = time.Time{}
	if !b.searching(b.last) {
		b.gap = firstEcho
		return
	}
	b.next = b.last.Add(max(b.gap, b.apart()))
	if b.gap = min(b.gap*3/2, maxEcho); b.last.Sub(b.rung) < quickFor {
		b.gap = min(b.gap, quickEcho)
	}
}

// apart is the least time between two pulls. b.mu is held.
func (b *Bell) apart() time.Duration {
	if len(b.waiting) >= crowd {
		return crowdedSpacing
	}
	return spacing
}

// Until is how long to wait for the next pull; negative for none.
func (b *Bell) Until() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next.IsZero() {
		return -1
	}
	return max(0, b.next.Sub(b.now()))
}

// Show strikes off what the log has shown.
func (b *Bell) Show(entries []audit.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting)+len(b.missing) == 0 {
		return
	}
	for i := range entries {
		id := entries[i].RequestID
		for _, m := range []map[string]time.Time{b.waiting, b.missing} {
			if at, ok := m[id]; ok {
				delete(m, id)
				id = strings.Clone(id) // not the page that it is a part of
				b.seen[id] = true
				if len(b.shown) < maxWaiting {
					b.shown[id] = at
				}
			}
		}
	}
	if !b.searching(b.now()) {
		b.next = time.Time{} // nothing is left to look for
	}
}

// Delivered returns how long ago those of the entries were announced that were.
func (b *Bell) Delivered(entries []audit.Entry) (ago []time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.shown) == 0 {
		return nil
	}
	for i := range entries {
		if at, ok := b.shown[entries[i].RequestID]; ok {
			delete(b.shown, entries[i].RequestID)
			ago = append(ago, b.now().Sub(at))
		}
	}
	return ago
}

// Settle returns the ids that have been seen since it was last asked, and those
// that have become missing.
func (b *Bell) Settle() (seen, lost []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	for id := range b.seen {
		seen = append(seen, id)
	}
	b.seen = map[string]bool{}
	for id, at := range b.waiting {
		if now.Sub(at) >= MissingAfter {
			delete(b.waiting, id)
			b.missing[id] = at
			lost = append(lost, id)
		}
	}
	for _, m := range []map[string]time.Time{b.missing, b.shown} {
		for id, at := range m {
			if now.Sub(at) >= forgetAfter {
				delete(m, id)
			}
		}
	}
	return seen, lost
}

// Load takes over what the ledger has on its list: ids that another relay was
// told of, and those from before a restart. What is no longer on the list,
// another relay has seen.
func (b *Bell) Load(list []audit.Announcement) {
	on := make(map[string]bool, len(list))
	var fresh []string
	var at time.Time
	b.mu.Lock()
	now := b.now()
	for _, a := range list {
		on[a.ID] = true
		switch {
		case now.Sub(a.At) >= MissingAfter:
			b.missing[a.ID] = a.At
			delete(b.waiting, a.ID)
		case b.waiting[a.ID].IsZero():
			fresh, at = append(fresh, a.ID), a.At
		}
	}
	for _, m := range []map[string]time.Time{b.waiting, b.missing} {
		for id := range m {
			if !on[id] {
				delete(m, id)
			}
		}
	}
	b.mu.Unlock()
	if len(fresh) > 0 {
		b.Ring(fresh, at)
	}
}

// Forget makes the bell as it was when it was new.
func (b *Bell) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.waiting)
	clear(b.missing)
	clear(b.seen)
	clear(b.shown)
	b.next, b.last, b.rung, b.gap, b.look, b.blind = time.Time{}, time.Time{}, time.Time{}, firstEcho, false, time.Time{}
}

// Counts are the ids waited for and those missing.
func (b *Bell) Counts() (waiting, missing int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting), len(b.missing)
}
