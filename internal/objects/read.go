package objects

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// round is the state of one call of Join.
type round struct {
	*Joiner

	w        audit.Writes
	now      time.Time // by this machine's clock
	prevRead time.Time // when the last read before this one began
	date     int64     // by Kong's, when the read began; 0 if it failed
	meta     meta
	pending  []*pending
	waits    map[string]*pending // of pending, by request id
	rows     map[string]*row     // that are not applied, or whose write waits
	others   []*row              // of rows, those that no write of this call waits for
	witness  bool                // the newest row is still there
	newest   witness             // of this read
	oldest   int64               // of this read

	states  map[string]*state // by entity; nil: none
	changed map[string]bool   // of states
	touches map[string][]*row // by entity: rows that are not applied yet
	counted []*row            // to be recorded as applied
	late    int
	marked  []audit.Entry   // that are put without rows
	journal []audit.Entry   // whose changes were decided in this call
	said    map[string]bool // writes whose changes were decided before
	ready   []audit.Entry
	again   time.Time

	unseen      []audit.Announcement // ids that have not shown up
	unseenKnown bool
}

// pending is a write that waits.
type pending struct {
	entry audit.Entry
	first time.Time // when it was first seen
	rows  []*row
	// settled: it has waited for earlier writes to show up.
	settled bool
}

// errEnough ends a walk that has read as far as is needed.
var errEnough = errors.New("read as far as needed")

// read reads the rows that may belong to the writes, and those that came since the last read.
func (r *round) read(ctx context.Context) error {
	from, until := r.span()
	if r.meta.Enabled == 0 {
		r.meta.Enabled = r.now.Unix()
		for _, p := range r.pending {
			r.meta.Enabled = min(r.meta.Enabled, p.entry.Timestamp)
		}
	}
	if r.meta.Through > 0 && r.opts.StartAt > r.meta.Through {
		r.meta.Gap = max(r.meta.Gap, r.opts.StartAt)
	}
	if r.failing && r.w.Live && r.now.Sub(r.lastRead) < failedFor {
		return nil
	}
	r.lastRead = r.now
	if r.source.within = pageWithin; r.w.Live {
		r.source.within = tailWithin
	}
	began, stop, err := r.walkRows(ctx, from, until)
	switch {
	case stop != nil: // the ledger's
		return stop
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && !errors.Is(err, errEnough):
		if !r.failing {
			r.log.Warn("entities that requests changed cannot be read, events go without their changes", "err", err, "hint", audit.Hint(err))
		}
		r.failing = true
		return nil
	}
	if r.failing {
		r.log.Info("entities that requests changed can be read again")
	}
	r.failing = false
	r.date = began
	if until == 0 {
		r.readAt, r.readFrom = r.now, from
	}
	r.hasRead(from, until)
	r.takeUndated()
	return nil
}

// walkRows reads rows. began is Kong's clock at its first answer; stop is the error of the
// ledger, and err that of the source.
func (r *round) walkRows(ctx context.Context, from, until int64) (began int64, stop, err error) {
	wk := r.reader.Walk()
	err = wk.Run(ctx, walk.Bounds{Floor: from, RestartFloor: from}, func(s walk.Step) error {
		if s.Restart {
			return nil
		}
		if stop = r.page(ctx, s.Entries); stop != nil {
			return stop
		}
		if until != 0 && s.Order == walk.OldestFirst && s.Last > until {
			return errEnough
		}
		return nil
	})
	return wk.KongTime().Unix(), stop, err
}

// span returns the first second to read and the last one, or 0 to read to the end.
func (r *round) span() (from, until int64) {
	from, latest := int64(math.MaxInt64), int64(0)
	if r.meta.Through > 0 {
		from = r.meta.Through
		if r.meta.Newest.ID != "" {
			from = min(from, r.meta.Newest.T)
		}
	}
	for _, p := range r.pending {
		if e := &p.entry; !e.TimestampGuessed {
			from, latest = min(from, e.Timestamp), max(latest, e.Timestamp)
		} else {
			latest = math.MaxInt64 - lookahead
		}
	}
	if from == math.MaxInt64 {
		from = r.now.Unix()
	}
	back := int64(lookback)
	if r.now.Sub(r.lastLong) >= longEvery {
		back, r.lastLong = longLookback, r.now
	}
	from = max(1, from-back)
	if r.w.Sweep || r.meta.Enabled == 0 {
		from = min(from, max(1, r.w.Floor))
	}
	if !r.w.Live && !r.w.Sweep && len(r.pending) > 0 {
		until = latest + lookahead
	}
	return from, until
}

// hasRead notes how far the rows have been read, and whether any may have been missed.
func (r *round) hasRead(from, until int64) {
	m := &r.meta
	through := r.date
	if until != 0 {
		through = min(through, until-lookahead)
	}
	m.Through = max(m.Through, through)
	if n := m.Newest; n.ID != "" && !r.witness && from <= n.T && (until == 0 || n.T <= until) {
		gap := r.date
		if r.oldest > n.T { // what is older was purged, and the rest is there
			gap = r.oldest
		}
		m.Gap = max(m.Gap, gap)
		m.Newest = witness{}
		if r.date < n.Expires-expiryMargin {
			r.log.Warn("rows of changed entities were removed from Kong, some perhaps unread: the next changes have no exact history")
		}
	}
	if r.newest.ID != "" && r.newest.T >= m.Newest.T {
		m.Newest = r.newest
	}
}

func (r *round) page(ctx context.Context, entries []audit.Entry) error {
	var fresh []audit.Entry
	for i := range entries {
		e := &entries[i]
		if e.Object == nil {
			continue
		}
		r.witness = r.witness || e.ID == r.meta.Newest.ID
		if e.TimestampGuessed {
			e.Timestamp = 1 // one that does not change from one read to the next
		} else {
			if r.oldest == 0 || e.Timestamp < r.oldest {
				r.oldest = e.Timestamp
			}
			if e.Timestamp >= r.newest.T && e.Timestamp <= r.now.Unix()+lookahead {
				r.newest = witness{ID: strings.Clone(e.ID), T: e.Timestamp, Expires: r.expires(e).Unix()}
			}
		}
		if _, have := r.rows[e.ID]; have || r.applied.has(e.ID) && r.waits[e.RequestID] == nil {
			continue
		}
		fresh = append(fresh, *e)
	}
	if len(fresh) == 0 {
		return nil
	}
	outcomes, err := r.opts.Ledger.Lookup(ctx, fresh)
	if err != nil {
		return fmt.Errorf("looking up %d rows of changed entities: %w", len(fresh), err)
	}
	for i := range fresh {
		r.take(&fresh[i], outcomes[i] != audit.NoOutcome)
	}
	if len(r.others) >= maxOthers {
		return r.applyOthers(ctx)
	}
	return nil
}

// take takes a row that may have to be applied. known reports that it has been applied.
func (r *round) take(e *audit.Entry, known bool) {
	r.rowsOf.put(requestID(e.RequestID), struct{}{})
	p := r.waits[e.RequestID]
	if known && p == nil {
		r.applied.put(e.ID, struct{}{})
		return
	}
	o := e.Object
	id := strings.Clone(e.ID)
	x := &row{
		id: id, request: requestID(e.RequestID), dao: strings.Clone(o.DAO), key: strings.Clone(o.Key), operation: strings.Clone(o.Operation),
		dated: !e.TimestampGuessed, expires: r.expires(e), known: known,
	}
	if x.dated {
		x.t = e.Timestamp
	}
	x.text = r.masker.Mask(x.dao, x.key, o.Entity, o.Removed)
	if x.key == "" {
		x.key = x.text.Text("id")
	}
	var again bool
	if x.sight, again = r.rowFirst[id]; !again {
		x.first = time.Now()
		if x.dated && x.t >= r.readFrom {
			x.absent = r.readAt
		}
		r.rowFirst[id] = x.sight
	}
	switch {
	case !x.dated: // such rows come once, before their requests
		same := func(y row) bool { return y.id == x.id }
		if len(r.undated) < maxUndated && !slices.ContainsFunc(r.undated[x.request], same) {
			r.undated[x.request] = append(r.undated[x.request], *x)
		}
		return
	case p != nil:
		p.rows = append(p.rows, x)
	default:
		r.others = append(r.others, x)
	}
	r.rows[id] = x
}

// takeUndated gives rows without a time to their writes. Such rows come first in a log that is
// read oldest first.
func (r *round) takeUndated() {
	for _, p := range r.pending {
		id := requestID(p.entry.RequestID)
		for i := range r.undated[id] {
			x := r.undated[id][i]
			if r.rows[x.id] == nil {
				x.t = p.entry.Timestamp
				p.rows = append(p.rows, &x)
				r.rows[x.id] = &x
			}
		}
	}
}

// requestID returns the ID of the entry to which a row's request id belongs.
func requestID(s string) string {
	return audit.Identity(&audit.Entry{RequestID: strings.Clone(s)})
}

// expires returns when a row may be forgotten.
func (r *round) expires(e *audit.Entry) time.Time {
	if e.TTL >= 0 {
		return r.now.Add(time.Duration(min(e.TTL, 100*365*24*3600)) * time.Second)
	}
	if e.TimestampGuessed {
		return r.now.Add(r.opts.RecordTTL)
	}
	return time.Unix(e.Timestamp, 0).Add(r.opts.RecordTTL)
}
