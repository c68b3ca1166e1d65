package delivery

import (
	"context"
	"fmt"
	"slices"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// held are the entries that wait for what they changed before they are put.
type held struct {
	entries []audit.Entry
	ids     map[string]bool
	bytes   int
	slot    *slot // keeps their place in reading order
}

// hold keeps an entry of a page until [Workers.Release]. It is not in flight meanwhile.
func (w *Workers) hold(e audit.Entry) {
	e.Detach()
	d, h := w.d, &w.held
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.flight, e.ID)
	if h.ids[e.ID] { // the walk has shown it before
		return
	}
	h.ids[e.ID] = true
	h.entries, h.bytes = append(h.entries, e), h.bytes+e.Size()
	if h.slot == nil {
		h.slot = d.reserve(e.Timestamp)
	}
	h.slot.from = min(h.slot.from, e.Timestamp)
}

// Held returns the entries that are held, which must not be changed, and their size.
func (w *Workers) Held() (entries []audit.Entry, bytes int) { return w.held.entries, w.held.bytes }

// Release puts entries that were held, in batches as [Workers.Add] does. Those that stay
// held keep their slot.
func (w *Workers) Release(ctx context.Context, ready []audit.Entry) error {
	if len(ready) == 0 {
		return nil
	}
	d, h := w.d, &w.held
	for i := range ready {
		delete(h.ids, ready[i].ID)
	}
	// Another tail may have held and released them as well.
	entries := d.takeIntoFlight(ready)
	outcomes, err := d.opts.Ledger.Lookup(ctx, entries)
	if err != nil {
		return fmt.Errorf("looking up %d held entries: %w", len(entries), err)
	}
	d.dropKnown(entries, outcomes)
	fresh := 0
	for i := range entries {
		if outcomes[i] != audit.NoOutcome {
			continue
		}
		fresh++
		if err := w.fill(ctx, entries, i); err != nil {
			return err
		}
	}
	d.count(func(c *Counts) { c.New += fresh })
	h.entries = slices.DeleteFunc(slices.Clone(h.entries), func(e audit.Entry) bool { return !h.ids[e.ID] })
	d.mu.Lock()
	defer d.mu.Unlock()
	h.bytes = 0
	if len(h.entries) == 0 {
		d.complete(h.slot)
		h.slot = nil
		return nil
	}
	h.slot.from = h.entries[0].Timestamp
	for i := range h.entries {
		h.bytes += h.entries[i].Size()
		h.slot.from = min(h.slot.from, h.entries[i].Timestamp)
	}
	return nil
}
