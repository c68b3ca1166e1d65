package objects

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// save stores what this call has found in the ledger, before any event is put: an event that
// has to be put again must have the same changes.
func (r *round) save(ctx context.Context) error {
	keep := r.now.Add(r.opts.RecordTTL + 24*time.Hour)
	long := keep.Add(365 * 24 * time.Hour)
	items := []audit.Item{{Key: "key", Value: r.key, Until: long}}
	for i := range r.journal {
		e := &r.journal[i]
		items = append(items, audit.Item{Key: journalKey(e.ID), Value: deflate([]byte(e.Changes)), Until: r.now.Add(journalLife)})
	}
	for i := range r.marked {
		items = append(items, audit.Item{Key: MarkedLate(r.marked[i].ID), Value: []byte(strconv.FormatInt(r.marked[i].Timestamp, 10)), Until: keep})
	}
	for entity := range r.changed {
		s := r.states[entity]
		until := s.expires.Add(24 * time.Hour)
		if until.Before(r.now.Add(time.Hour)) {
			until = keep
		}
		items = append(items, audit.Item{Key: stateKey(entity), Value: s.encode(), Until: until})
	}
	text := r.meta.encode()
	if len(items) > 1 || string(text) != string(r.Joiner.meta.encode()) && r.worthIt() {
		if err := r.remember(ctx, append(items, audit.Item{Key: "meta", Value: text, Until: long})); err != nil {
			return err
		}
		r.Joiner.meta = r.meta.clone()
	}
	return r.count(ctx)
}

// remember stores items in their order, as many at once as every server takes. The changes of
// a write come before the states that follow from it.
func (r *round) remember(ctx context.Context, items []audit.Item) error {
	for len(items) > 0 {
		n, size := 0, 0
		for n < len(items) && (n == 0 || size+len(items[n].Value) <= maxRequest) {
			size += len(items[n].Key) + len(items[n].Value)
			n++
		}
		dropped, err := r.opts.Memory.Remember(ctx, r.version, items[:n], maxEntities)
		if err != nil {
			return fmt.Errorf("remembering entities: %w", err)
		}
		r.version++
		items = items[n:]
		if dropped > 0 && r.now.Sub(r.full) > time.Hour {
			r.full = r.now
			r.log.Warn("more entities than are remembered, the next change of the oldest ones has no history", "count", maxEntities)
		}
	}
	return nil
}

// worthIt reports whether meta has to be stored although nothing else is.
func (r *round) worthIt() bool {
	was := &r.Joiner.meta
	return was.Enabled == 0 || r.meta.Gap != was.Gap || r.meta.Newest.ID != was.Newest.ID || len(r.meta.Open) != len(was.Open) || r.meta.Through-was.Through >= lookback
}

// count records the rows that were applied.
func (r *round) count(ctx context.Context) error {
	if len(r.counted) > 0 {
		records := make([]audit.Record, 0, len(r.counted))
		for _, x := range r.counted {
			rec := audit.Record{ID: x.id, Timestamp: x.t, Retention: max(0, x.expires.Sub(r.now)), Outcome: audit.Delivered}
			if !x.dated {
				rec.Timestamp = 1
			}
			records = append(records, rec)
		}
		if err := r.opts.Ledger.Record(ctx, records); err != nil {
			return fmt.Errorf("recording %d rows of changed entities: %w", len(records), err)
		}
		for _, x := range r.counted {
			r.applied.put(x.id, struct{}{})
			delete(r.rowFirst, x.id)
			if !x.dated {
				delete(r.undated, x.request)
			}
		}
	}
	if f := r.opts.Observer.Late; f != nil && r.late > 0 {
		f(r.late)
	}
	r.counted, r.changed, r.journal, r.marked, r.late = nil, map[string]bool{}, nil, nil, 0
	for id, s := range r.rowFirst {
		if r.now.Sub(s.first) > maxFirst {
			delete(r.rowFirst, id)
		}
	}
	return nil
}
