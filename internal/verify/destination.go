package verify

import (
	"context"
	"crypto/sha256"
	"maps"
	"slices"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/lake"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

const (
	// sliceEntries is how many entries are compared with the destination at once
	// where the log has an order.
	sliceEntries = 50_000
	// strayBatch is how many ids of unexpected events are looked up at once.
	strayBatch = 500

	daySeconds = 24 * 60 * 60
)

// key is an id, hashed: a million of them fit into some tens of megabytes.
type key [16]byte

func keyOf(id string) key {
	sum := sha256.Sum256([]byte(id))
	return key(sum[:16])
}

// notExpected stands for the timestamp of an entry that need not be at the destination.
const notExpected = -1 << 62

// hold keeps an entry until its slice is compared with the destination.
func (v *verification) hold(ctx context.Context, e *audit.Entry, o audit.Outcome) error {
	t := min(max(e.Timestamp, lake.MinTime), lake.MaxTime)
	if !v.begun {
		v.begun, v.low, v.high = true, t, t
		switch {
		case v.order == walk.NewestFirst:
			v.edge = v.bound()
		case v.since != 0:
			v.edge = v.since
		default:
			v.edge = t
		}
	}
	full := len(v.pending) >= v.slice
	switch {
	case v.order == walk.OldestFirst && t < v.edge, v.order == walk.NewestFirst && t >= v.edge:
		// Written into a time that has been compared, or ahead of Kong's clock.
		if o == audit.Delivered {
			v.report.Destination.NotDue++
			v.cap(e.Timestamp)
		}
		return nil
	case v.order == walk.OldestFirst && full && t > v.high:
		if err := v.compare(ctx, v.edge, t); err != nil {
			return err
		}
		v.edge, v.low = t, t
	case v.order == walk.NewestFirst && full && t < v.low:
		if err := v.compare(ctx, v.low, v.edge); err != nil {
			return err
		}
		v.edge, v.high = v.low, t
	case v.order == walk.Unordered:
		v.days[floorDay(t)]++
	}
	v.low, v.high = min(v.low, t), max(v.high, t)
	expected := int64(notExpected)
	if o == audit.Delivered {
		expected = t
	}
	v.pending[keyOf(e.ID)] = expected
	return nil
}

// bound is the first second that the destination is not asked about.
func (v *verification) bound() int64 {
	if v.until != 0 {
		return min(v.until, v.now+1)
	}
	return v.now + 1
}

func floorDay(t int64) int64 {
	day := t / daySeconds
	if t%daySeconds < 0 {
		day--
	}
	return day
}

// closeSlices compares what is left.
func (v *verification) closeSlices(ctx context.Context) error {
	switch {
	case v.lake == nil:
		return nil
	case !v.begun: // Kong holds nothing here
		if v.since == 0 {
			return nil
		}
		return v.compareRest(ctx, v.since, v.bound())
	case v.order == walk.OldestFirst:
		return v.compareRest(ctx, v.edge, v.bound())
	case v.order == walk.NewestFirst:
		return v.compareRest(ctx, v.floor(), v.edge)
	}
	from, n := v.floor(), 0
	for _, day := range slices.Sorted(maps.Keys(v.days)) {
		if begin := day * daySeconds; n > 0 && n+v.days[day] > v.slice && begin > from && begin < v.bound() {
			if err := v.query(ctx, from, begin); err != nil {
				return err
			}
			from, n = begin, 0
		}
		n += v.days[day]
	}
	return v.compareRest(ctx, from, v.bound())
}

// floor is the first second of the time that is compared: events are older than
// what Kong still holds for as long as the destination keeps them.
func (v *verification) floor() int64 {
	if v.since != 0 {
		return v.since
	}
	return v.low
}

// compareRest is compare for a last slice, which may be empty.
func (v *verification) compareRest(ctx context.Context, from, to int64) error {
	if from >= to {
		v.settleSlice()
		return nil
	}
	return v.compare(ctx, from, to)
}

// compare strikes off the open slice what the destination holds of a span of time
// that covers it.
func (v *verification) compare(ctx context.Context, from, to int64) error {
	if err := v.query(ctx, from, to); err != nil {
		return err
	}
	v.settleSlice()
	return nil
}

// query asks for one span of time.
func (v *verification) query(ctx context.Context, from, to int64) error {
	d := v.report.Destination
	var strays []audit.Entry
	for e, err := range v.lake.Events(ctx, from, to) {
		if err != nil {
			return err
		}
		if e.Times > 1 {
			d.Repeated.add(e.UID)
			d.Extra += e.Times - 1
		}
		k := keyOf(e.UID)
		if expected, ok := v.pending[k]; ok {
			if expected != notExpected {
				d.Confirmed++
			}
			delete(v.pending, k)
			continue
		}
		if strays = append(strays, audit.Entry{ID: e.UID, Timestamp: e.Time}); len(strays) == strayBatch {
			if err := v.sortStrays(ctx, strays); err != nil {
				return err
			}
			strays = strays[:0]
		}
	}
	return v.sortStrays(ctx, strays)
}

// sortStrays asks the ledger about events that Kong did not show.
func (v *verification) sortStrays(ctx context.Context, strays []audit.Entry) error {
	outcomes, err := v.app.Store.Lookup(ctx, strays)
	if err != nil {
		return err
	}
	for i, o := range outcomes {
		if o == audit.New {
			v.report.Destination.Unknown.add(strays[i].ID)
		} else {
			v.report.Destination.Gone++
		}
	}
	return nil
}

// settleSlice sorts what the destination did not show, and begins the next slice.
func (v *verification) settleSlice() {
	for k, t := range v.pending {
		switch {
		case t == notExpected:
		case v.now-t < v.grace, t > v.now:
			v.report.Destination.NotDue++
			v.cap(t)
		default:
			v.lost[k] = t
			v.span(t)
		}
	}
	clear(v.pending)
}

// nameLost reads once more where entries are missing at the destination, as only
// hashes of their ids were kept.
func (v *verification) nameLost(ctx context.Context) error {
	if len(v.lost) == 0 {
		return nil
	}
	f := &v.report.Destination.Missing
	f.Count = len(v.lost)
	named := map[key]bool{}
	return v.log.Scan(ctx, v.first, v.last+1, func(s walk.Scanned) error {
		for i := range s.Entries {
			k := keyOf(s.Entries[i].ID)
			if _, ok := v.lost[k]; ok && !named[k] && len(named) < maxNames {
				named[k] = true
				f.name(s.Entries[i].ID)
			}
		}
		return nil
	})
}
