package delivery

import (
	"context"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// filling is the batch that is being filled. Where all entries of a page are new, which
// is usual, it is a part of the page itself: the entries from start on.
type filling struct {
	batch []audit.Entry
	from  *audit.Entry // first entry of that page; nil if the batch has memory of its own
	start int
	slot  *slot
	bytes int
}

// Add finds the new entries of a page and puts them in batches. The last batch is put
// once it is full or by [Workers.Flush]. Add waits for a worker and for room in memory.
// The page must not be changed afterwards. now is Kong's clock, in Unix
// seconds.
//
// An entry that is in flight already is skipped, whichever pool it is in. An error stops
// the pass.
func (w *Workers) Add(ctx context.Context, page []audit.Entry, now int64) error {
	if len(page) == 0 {
		return nil
	}
	d := w.d
	if f := d.opts.Observer.Seen; f != nil {
		f(page)
	}
	counts := Counts{Read: len(page), Ahead: aheadOf(page, now)}
	if d.opts.DryRun {
		return d.countNew(ctx, page, counts)
	}
	if err := w.RecordFirst(); err != nil {
		return err
	}
	entries := d.takeIntoFlight(page)
	outcomes, own, err := d.lookup(ctx, entries)
	if err != nil {
		return err
	}
	d.dropKnown(entries, outcomes)
	var ownReads []audit.Record
	few := mostlyKnown(entries, outcomes)
	for i := range entries {
		e := &entries[i]
		switch {
		case outcomes[i] != audit.NoOutcome:
		case own[i]:
			ownReads = append(ownReads, d.newRecord(e, audit.Own, nil))
		case d.opts.Hold != nil && d.opts.Hold(e):
			w.hold(*e)
		default:
			counts.New++
			if few {
				d.detach(e)
			}
			if err := w.fill(ctx, entries, i); err != nil {
				return err
			}
		}
	}
	if w.filling.bytes >= d.opts.BatchBytes*3/4 {
		// The batch need not wait for the next page, nor become a copy of its entries.
		if err := w.Flush(ctx); err != nil {
			return err
		}
	}
	if len(ownReads) > 0 {
		if err := d.commit(w.work, ownReads, nil); err != nil {
			return err
		}
	}
	counts.Own = len(ownReads)
	d.count(func(c *Counts) { c.Add(counts) })
	return nil
}

// countNew counts a page's entries, for a dry run.
func (d *Delivery) countNew(ctx context.Context, page []audit.Entry, counts Counts) error {
	outcomes, own, err := d.lookup(ctx, page)
	if err != nil {
		return err
	}
	for i := range page {
		switch {
		case outcomes[i] != audit.NoOutcome:
		case own[i]:
			counts.Own++
		default:
			counts.New++
			if d.opts.Observer.New == nil {
				continue
			}
			if d.opts.Prepare != nil {
				d.opts.Prepare(&page[i])
			}
			d.opts.Observer.New(&page[i])
		}
	}
	d.count(func(c *Counts) { c.Add(counts) })
	return nil
}

// aheadOf returns how many entries have a timestamp ahead of Kong's clock.
func aheadOf(page []audit.Entry, now int64) (n int) {
	for i := range page {
		if page[i].Timestamp > now+1 {
			n++
		}
	}
	return n
}

// lookup returns what became of entries, and which of the new ones are own reads to be
// left out.
func (d *Delivery) lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, map[int]bool, error) {
	begin := time.Now()
	outcomes, err := d.opts.Ledger.Lookup(ctx, entries)
	d.opts.Observer.stage("lookup", begin)
	if err != nil {
		return nil, nil, fmt.Errorf("looking up %d entries: %w", len(entries), err)
	}
	if d.opts.OwnReads == nil {
		return outcomes, nil, nil
	}
	own, err := d.opts.OwnReads(ctx, entries, outcomes)
	return outcomes, own, err
}

// mostlyKnown reports whether the new entries are the smaller part of a page. Such
// entries are copied, or a batch that gathers them would keep the texts of others too.
func mostlyKnown(entries []audit.Entry, outcomes []audit.Outcome) bool {
	all, fresh := 0, 0
	for i := range entries {
		n := entries[i].Size()
		all += n
		if outcomes[i] == audit.NoOutcome {
			fresh += n
		}
	}
	return fresh < all/2
}

// fill prepares an entry of a page and puts it into the batch. The entry must not
// change any more.
func (w *Workers) fill(ctx context.Context, page []audit.Entry, i int) error {
	if f := w.d.opts.Prepare; f != nil {
		f(&page[i])
	}
	o, f, size := &w.d.opts, &w.filling, page[i].Size()
	if len(f.batch) > 0 && (len(f.batch) >= o.BatchEntries || f.bytes+size > o.BatchBytes) {
		if err := w.Flush(ctx); err != nil {
			return err
		}
	}
	switch {
	case len(f.batch) == 0:
		f.slot = w.d.newSlot(page[i].Timestamp)
		f.from, f.start = &page[0], i
		f.batch = page[i : i+1 : i+1]
	case f.from == &page[0] && f.start+len(f.batch) == i:
		f.batch = page[f.start : i+1 : i+1]
	default:
		f.from = nil
		f.batch = append(f.batch, page[i])
	}
	f.bytes += size
	return nil
}

// Flush puts the batch that is being filled. Like [Workers.Add] it waits for a worker
// and for room, and its error stops the pass.
func (w *Workers) Flush(ctx context.Context) error {
	f := &w.filling
	if len(f.batch) == 0 {
		return nil
	}
	batch, slot := f.batch, f.slot
	f.batch, f.slot, f.bytes = nil, nil, 0
	return w.put(ctx, batch, slot)
}
