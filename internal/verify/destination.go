package verify

import (
	"context"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

const (
	// strayBatch is how many ids of unexpected events are looked up at once.
	strayBatch = 500
	// asks is how often the destination is asked again within --grace, and leastWait the least
	// time between two of these questions.
	asks      = 6
	leastWait = time.Second

	daySeconds = 24 * 60 * 60
)

// compare looks for the delivered entries at the destination, if it can be asked.
func (v *verification) compare(ctx context.Context) error {
	if v.destination == nil {
		return nil
	}
	// All that the ledger calls delivered was delivered before the ledger was read, so the
	// destination must show it by then.
	visible := time.Now().Add(v.Grace)
	from, to := v.Since, int64(audit.MaxEventTime)
	if v.Until != 0 {
		to = v.Until
	}
	if v.Since == 0 {
		if v.report.Entries == 0 { // Kong holds nothing here
			return nil
		}
		from = v.low
	}
	for _, s := range v.held.spans(from, to, v.Slice) {
		if err := v.ask(ctx, s[0], s[1], true); err != nil {
			return err
		}
	}
	hidden := v.notShown()
	if hidden.n > 0 && v.destination.Refiles {
		if err := v.askElsewhere(ctx, from, to, true); err != nil {
			return err
		}
		hidden = v.notShown()
	}
	for ; hidden.n > 0 && v.waitUntil(ctx, visible, hidden.n); hidden = v.notShown() {
		if err := v.ask(ctx, hidden.first, hidden.last+1, false); err != nil {
			return err
		}
		if v.destination.Refiles {
			if err := v.askElsewhere(ctx, hidden.first, hidden.last+1, false); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	v.settle()
	return v.sortStrays(ctx)
}

// askElsewhere asks for events that are filed outside a span of time because the
// destination did not accept their own time: after the span, or before it if their time was
// ahead of the clock. Nothing that Kong still holds was put longer ago than Kong keeps entries.
func (v *verification) askElsewhere(ctx context.Context, from, to int64, first bool) error {
	if err := v.ask(ctx, to, audit.MaxEventTime, first); err != nil {
		return err
	}
	kept := max(int64(v.app.Settings.RecordTTL/time.Second), v.ttl) + daySeconds
	return v.ask(ctx, v.now-kept, from, first)
}

// waitUntil waits until it is time to ask again for n events, at most until end. It returns
// false if there is no time left.
func (v *verification) waitUntil(ctx context.Context, end time.Time, n int) bool {
	left := time.Until(end)
	if left <= 0 || ctx.Err() != nil {
		return false
	}
	v.app.Log.Info("waiting for the destination to show what it has accepted", "events", n, "until", end.UTC().Format(time.RFC3339))
	select {
	case <-time.After(min(left, max(v.Grace/asks, leastWait))):
		return true
	case <-ctx.Done():
		return false
	}
}

// ask notes the events that the destination holds of a span of time. If it was asked for that
// span before, ask notes only events that it did not show then.
func (v *verification) ask(ctx context.Context, from, to int64, first bool) error {
	if from >= to {
		return nil
	}
	d := v.report.Destination
	for e, err := range v.destination.Events(ctx, from, to) {
		if err != nil {
			return err
		}
		if e.UID == "" {
			if first {
				d.Unreadable++
			}
			continue
		}
		i := v.held.find(e.UID)
		switch {
		case i == nil:
			if first {
				err = v.stray(ctx, e)
			}
		case !i.is(shown):
			if i.set(shown); i.is(expected) {
				d.Confirmed++
			}
			if first && e.Times > 1 {
				v.repeat(i, e.UID, e.Times-1)
			}
		case first:
			v.repeat(i, e.UID, e.Times)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// repeat counts events of an entry beyond its first one.
func (v *verification) repeat(i *item, id string, extra int) {
	v.report.Destination.Extra += extra
	if !i.is(repeated) {
		i.set(repeated)
		v.report.Destination.Repeated.add(id)
	}
}

// stray notes an event that Kong has not shown, if its time is within what is verified.
func (v *verification) stray(ctx context.Context, e audit.StoredEvent) error {
	if floor := max(v.Since, v.low); e.Time < floor || v.Until != 0 && e.Time >= v.Until {
		return nil
	}
	h, d := v.held.hash(e.UID), v.report.Destination
	times := v.strays[h]
	v.strays[h] = min(times+e.Times, 2)
	if times+e.Times > 1 {
		d.Extra += e.Times - 1 + min(times, 1)
		if times < 2 {
			d.Repeated.add(e.UID)
		}
	}
	if times > 0 {
		return nil
	}
	v.unsorted = append(v.unsorted, audit.Entry{ID: e.UID, Timestamp: e.Time})
	if len(v.unsorted) < strayBatch {
		return nil
	}
	return v.sortStrays(ctx)
}

// sortStrays looks up the strays in the ledger: it knows those whose rows Kong has deleted.
func (v *verification) sortStrays(ctx context.Context) error {
	outcomes, err := v.app.Store.Lookup(ctx, v.unsorted)
	if err != nil {
		return err
	}
	for i, o := range outcomes {
		if o == audit.NoOutcome {
			v.report.Destination.Unknown.add(v.unsorted[i].ID)
		} else {
			v.report.Destination.Gone++
		}
	}
	v.unsorted = v.unsorted[:0]
	return nil
}

// isYoung reports whether an entry with a timestamp is so young that the destination need
// not show it yet.
func (v *verification) isYoung(timestamp int64) bool {
	return timestamp <= v.now && v.now-timestamp < int64(v.Grace/time.Second)
}

// notShown returns the times of the entries that the destination has not shown although it
// should have.
func (v *verification) notShown() (hidden span) {
	v.held.all(func(i *item) {
		if t := i.timestamp(); i.is(expected) && !i.is(shown) && !v.isYoung(t) {
			hidden.add(t)
		}
	})
	return hidden
}

// settle counts the entries that the destination has not shown. Those that are young are
// not due, since compare has not waited for them; the others are missing.
func (v *verification) settle() {
	v.held.all(func(i *item) {
		if !i.is(expected) || i.is(shown) {
			return
		}
		if t := i.timestamp(); v.isYoung(t) {
			v.report.Destination.NotDue++
			v.cap(t)
		} else {
			v.lost[i.hash] = struct{}{}
			v.gap(t)
		}
	})
}

// nameLost finds the ids of the entries that are missing at the destination. It reads the
// log again, since only hashes of the ids were kept.
func (v *verification) nameLost(ctx context.Context) error {
	if len(v.lost) == 0 {
		return nil
	}
	f := &v.report.Destination.Missing
	f.Count = len(v.lost)
	named := map[uint64]bool{}
	return v.log.Scan(ctx, v.gaps.first, v.gaps.last+1, func(s walk.Step) error {
		for i := range s.Entries {
			h := v.held.hash(s.Entries[i].ID)
			if _, ok := v.lost[h]; ok && !named[h] && len(named) < MaxIDs {
				named[h] = true
				f.name(s.Entries[i].ID)
			}
		}
		return nil
	})
}
