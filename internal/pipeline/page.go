package pipeline

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// batcher sorts out what is new on the pages of one walk, and hands it to a worker
// pool in batches. One goroutine owns it.
type batcher struct {
	ps      *pass
	workers *workers

	// The batch that is being filled. As a rule all entries of a page are new, and
	// then it is a part of the page itself: entries from start on.
	batch []audit.Entry
	from  *audit.Entry // first entry of that page; nil if the batch has memory of its own
	start int
	slot  *slot
	bytes int
}

// page sorts out what is new on a page and adds it to the batch. now is Kong's
// clock when the walk began.
func (b *batcher) page(ctx, work context.Context, entries []audit.Entry, now int64) error {
	ps, d := b.ps, b.ps.del
	p, dry := ps.p, ps.req.DryRun
	if len(entries) == 0 {
		return nil
	}
	if f := p.opts.Observer.Seen; f != nil {
		f(entries)
	}
	read, ahead := len(entries), 0
	for i := range entries {
		if entries[i].Timestamp > now+1 {
			ahead++
		}
	}
	if !dry {
		if err := d.recordFirst(work); err != nil {
			return err
		}
		entries = d.takeIntoFlight(entries)
	}
	begin := time.Now()
	outcomes, err := p.opts.Ledger.Lookup(ctx, entries)
	p.opts.Observer.stage("lookup", begin)
	if err != nil {
		return fmt.Errorf("looking up %d entries: %w", len(entries), err)
	}
	skip, err := p.skipOwnReads(ctx, entries, outcomes)
	if err != nil {
		return err
	}
	var own []audit.Record // to be recorded as such
	fresh, few := 0, mostlyKnown(entries, outcomes)
	if !dry {
		d.dropKnown(entries, outcomes)
	}
	for i := range entries {
		e := &entries[i]
		if outcomes[i] != audit.New {
			continue
		}
		if skip[i] {
			own = append(own, d.record(e, audit.Own, nil))
			continue
		}
		fresh++
		if dry {
			continue
		}
		if few {
			detach(e)
			d.keepInFlight(e.ID)
		}
		if p.opts.Prepare != nil {
			p.opts.Prepare(e)
		}
		if err := b.add(ctx, work, entries, i); err != nil {
			return err
		}
	}
	if len(own) > 0 && !dry {
		if err := d.commit(work, own, nil); err != nil {
			return err
		}
	}
	d.count(func(s *Summary) { s.Read += read; s.Ahead += ahead; s.New += fresh; s.Own += len(own) })
	return nil
}

// mostlyKnown reports whether the new entries are the smaller part of a page. Such
// entries are copied, or a batch that gathers them would keep all their pages in memory.
func mostlyKnown(entries []audit.Entry, outcomes []audit.Outcome) bool {
	all, fresh := 0, 0
	for i := range entries {
		n := entries[i].Size()
		all += n
		if outcomes[i] == audit.New {
			fresh += n
		}
	}
	return fresh < all/2
}

// detach copies an entry out of the memory of its page.
func detach(e *audit.Entry) {
	for _, s := range []*string{
		&e.ID, &e.RequestID, &e.ClientIP, &e.Method, &e.Path, &e.Workspace, &e.Payload, &e.RemovedFromPayload,
		&e.Signature, &e.RBACUserID, &e.RBACUserName, &e.RequestSource, &e.Unknown, &e.KongVersion,
	} {
		*s = strings.Clone(*s)
	}
}

// add puts an entry of a page, which must not change any more, into the batch.
func (b *batcher) add(ctx, work context.Context, page []audit.Entry, i int) error {
	o, size := &b.ps.p.opts, page[i].Size()
	if len(b.batch) > 0 && (len(b.batch) >= o.BatchEntries || b.bytes+size > o.BatchBytes) {
		if err := b.flush(ctx, work); err != nil {
			return err
		}
	}
	switch {
	case len(b.batch) == 0:
		b.slot = b.ps.del.newSlot(page[i].Timestamp)
		b.from, b.start = &page[0], i
		b.batch = page[i : i+1 : i+1]
	case b.from == &page[0] && b.start+len(b.batch) == i:
		b.batch = page[b.start : i+1 : i+1]
	default:
		b.from = nil
		b.batch = append(b.batch, page[i])
	}
	b.bytes += size
	return nil
}

// flush hands over the batch that is being filled.
func (b *batcher) flush(ctx, work context.Context) error {
	if len(b.batch) == 0 {
		return nil
	}
	batch, slot := b.batch, b.slot
	b.batch, b.slot, b.bytes = nil, nil, 0
	return b.workers.put(ctx, work, batch, slot)
}
