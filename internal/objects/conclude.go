package objects

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/changes"
)

// step is one thing to apply: the rows of one write, or one row that came late.
type step struct {
	t     int64
	write *pending // nil: late
	rows  []*row
}

// conclude decides which writes wait no longer, and finds out what they changed.
func (r *round) conclude(ctx context.Context) error {
	steps, err := r.lateRows(ctx)
	if err != nil {
		return err
	}
	if err := r.recall(ctx); err != nil {
		return err
	}
	if err := r.askUnseen(ctx); err != nil {
		r.log.Debug("announced ids not read, no history is exact", "err", err)
	}
	for _, p := range r.pending {
		_, told := r.announcedAt.get(p.entry.ID)
		shown := p.first
		if last := p.lastRow(); !last.IsZero() && last.Before(shown) {
			shown = last
		}
		// A trigger may come a little after the rows, so a write does not count as unannounced at once.
		if !told && r.unseenKnown && !r.isOld(p) && r.now.Sub(shown) >= nextRowWait {
			r.meta.Unannounced = r.now.Unix()
		}
	}
	r.touches = map[string][]*row{}
	for _, x := range r.rows {
		r.noticed(x)
		r.touches[x.entity()] = append(r.touches[x.entity()], x)
	}
	for _, rows := range r.undated { // of requests that have not shown up
		for i := range rows {
			if x := &rows[i]; r.rows[x.id] == nil {
				r.touches[x.entity()] = append(r.touches[x.entity()], x)
			}
		}
	}
	var waiting []*pending
	slices.SortStableFunc(r.pending, func(a, b *pending) int { return cmp.Compare(a.entry.Timestamp, b.entry.Timestamp) })
	for _, p := range r.pending {
		if at := r.wait(p, waiting); !at.IsZero() {
			waiting = append(waiting, p)
			if r.again.IsZero() || at.Before(r.again) {
				r.again = at
			}
			continue
		}
		s := step{t: p.entry.Timestamp, write: p, rows: p.rows}
		for _, x := range p.rows {
			s.t = min(s.t, x.t)
		}
		steps = append(steps, s)
	}
	r.apply(steps)
	return nil
}

// wait returns when to look again for what a write waits for, or the zero time if it
// waits no longer. before are older writes that wait.
func (r *round) wait(p *pending, before []*pending) time.Time {
	waited := r.now.Sub(p.first)
	old := r.isOld(p)
	lagging := r.now.Sub(r.lagged) < unannouncedFor
	p.settled = old || waited >= firstRowWait && !lagging
	if old || waited >= firstRowWait+nextRowWait {
		p.settled = p.settled || r.allAnnounced(p)
		return time.Time{}
	}
	poll := min(max(waited/2, minWait), nextRowWait)
	if len(p.rows) == 0 {
		if waited >= firstRowWait {
			return time.Time{}
		}
		return r.now.Add(min(poll, firstRowWait-waited))
	}
	if at := p.lastRow().Add(nextRowWait); at.After(r.now) {
		return at
	}
	if slices.ContainsFunc(before, p.shares) { // what is older goes first
		return r.now.Add(poll)
	}
	if p.settled = p.settled || r.allAnnounced(p); p.settled || waited >= firstRowWait {
		return time.Time{}
	}
	if slices.ContainsFunc(p.rows, func(x *row) bool { return x.operation == changes.Update && r.certain(x, p) }) {
		return r.now.Add(min(poll, firstRowWait-waited))
	}
	return time.Time{}
}

// isOld reports whether a write was made so long ago that its rows and those of all earlier
// writes are there.
func (r *round) isOld(p *pending) bool {
	return !r.w.Live && r.date != 0 && !p.entry.TimestampGuessed && p.entry.Timestamp <= r.date-settledAge
}

// lastRow returns when the last row of a write was first seen.
func (p *pending) lastRow() (last time.Time) {
	for _, x := range p.rows {
		if x.first.After(last) {
			last = x.first
		}
	}
	return last
}

// shares reports whether two writes changed the same entity.
func (p *pending) shares(o *pending) bool {
	return slices.ContainsFunc(p.rows, func(x *row) bool {
		return slices.ContainsFunc(o.rows, func(y *row) bool { return x.entity() == y.entity() })
	})
}

// allAnnounced reports whether every write of some time was announced and everything that was
// announced has shown up. Then every write that was made before p has shown up.
func (r *round) allAnnounced(p *pending) bool {
	if !r.unseenKnown {
		return false
	}
	if r.now.Sub(time.Unix(r.meta.Unannounced, 0)) < unannouncedFor {
		return false
	}
	for _, a := range r.unseen {
		if a.At.Unix() <= p.first.Unix()+1 && r.now.Sub(a.At) < lostAfter*time.Second {
			return false
		}
	}
	return true
}

// lateRows returns the rows that no write waits for any more, because their event was put or
// their request is lost. It leaves out rows whose request may still show up.
func (r *round) lateRows(ctx context.Context) (steps []step, err error) {
	if len(r.others) == 0 {
		return nil, nil
	}
	outcomes, err := r.requests(ctx, r.others)
	if err != nil {
		return nil, err
	}
	for _, x := range r.others {
		_, waits := r.firstSeen(x.request)
		switch {
		case outcomes[x.request] || r.wasSeen(x.request) && !waits:
		case !waits && r.w.Through > 0 && x.t < r.w.Through-lostAfter:
			x.lost = true
		default:
			continue
		}
		if x.t >= r.meta.Enabled && !r.said[x.request] {
			r.late++
		}
		steps = append(steps, step{t: x.t, rows: []*row{x}})
		r.meta.Open = slices.DeleteFunc(r.meta.Open, func(o openWrite) bool { return o.ID == x.request }) // it has rows after all
	}
	r.others = nil
	return steps, nil
}

// requests reports for the requests of rows whether the ledger knows them.
func (r *round) requests(ctx context.Context, rows []*row) (map[string]bool, error) {
	const day, near = 24 * 60 * 60, 2 * lookahead
	var ask []audit.Entry
	for _, x := range rows {
		ask = append(ask, audit.Entry{ID: x.request, Timestamp: x.t})
		// The ledger finds an entry by its day.
		if x.t%day < near {
			ask = append(ask, audit.Entry{ID: x.request, Timestamp: x.t - near})
		} else if x.t%day >= day-near {
			ask = append(ask, audit.Entry{ID: x.request, Timestamp: x.t + near})
		}
	}
	outcomes, err := r.opts.Ledger.Lookup(ctx, ask)
	if err != nil {
		return nil, fmt.Errorf("looking up requests of %d rows: %w", len(rows), err)
	}
	known := map[string]bool{}
	for i := range ask {
		known[ask[i].ID] = known[ask[i].ID] || outcomes[i] != audit.NoOutcome
	}
	return known, nil
}

// applyOthers applies rows that no write waits for, so that they are not held in memory until
// all have been read.
func (r *round) applyOthers(ctx context.Context) error {
	steps, err := r.lateRows(ctx)
	if err != nil {
		return err
	}
	if err := r.recall(ctx); err != nil {
		return err
	}
	r.apply(steps)
	for _, s := range steps {
		delete(r.rows, s.rows[0].id)
	}
	return r.save(ctx)
}

// recall fetches the states of the entities to which the rows belong.
func (r *round) recall(ctx context.Context) error {
	var names, keys []string
	for _, x := range r.rows {
		if _, have := r.states[x.entity()]; !have {
			r.states[x.entity()] = nil
			names, keys = append(names, x.entity()), append(keys, stateKey(x.entity()))
		}
	}
	if len(keys) == 0 {
		return nil
	}
	values, version, err := r.opts.Memory.Recall(ctx, keys)
	if err != nil {
		return fmt.Errorf("recalling %d entities: %w", len(keys), err)
	}
	if version != r.version {
		return audit.ErrMemoryChanged
	}
	for i, v := range values {
		if v != nil {
			r.states[names[i]] = decodeState(v)
		}
	}
	return nil
}

// apply makes steps in the order of their times: it adds to each write what it changed, and
// updates the states of entities.
func (r *round) apply(steps []step) {
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.t, b.t) })
	for i := range steps {
		s := &steps[i]
		if s.write != nil {
			r.say(s.write)
		}
		for _, x := range s.rows {
			r.advance(x, s.write)
		}
	}
}

// say adds to an entry what its request changed.
func (r *round) say(p *pending) {
	e := p.entry
	if len(p.rows) == 0 {
		e.Changes = changes.Event(nil, true, maxEvent)
		r.meta.open(openWrite{ID: e.ID, T: undatedAsZero(&e), Method: e.Method, Path: e.Path})
		r.marked = append(r.marked, e)
	} else {
		list := make([]changes.Change, 0, len(p.rows))
		for _, x := range p.rows {
			list = append(list, r.change(x, p))
		}
		e.Changes = changes.Event(list, false, maxEvent)
	}
	r.journal = append(r.journal, e)
	r.ready = append(r.ready, e)
}

func undatedAsZero(e *audit.Entry) int64 {
	if e.TimestampGuessed {
		return 0
	}
	return e.Timestamp
}

// change returns what a row changed.
func (r *round) change(x *row, p *pending) changes.Change {
	known, before := r.history(x, p), changes.State("")
	if s := r.before(x, p); s != nil && known != changes.Unavailable {
		before = s.text
	}
	if f := r.opts.Observer.Changed; f != nil {
		f(string(known))
	}
	return changes.NewChange(x.dao, x.key, x.operation, before, x.text, known)
}

// advance updates the state of a row's entity. p is nil for a row that came late.
func (r *round) advance(x *row, p *pending) {
	if x.known {
		return
	}
	r.counted = append(r.counted, x)
	r.noticed(x)
	s, t := r.states[x.entity()], x.t
	if p != nil {
		t = max(t, p.entry.Timestamp)
	}
	if x.key == "" || s != nil && s.Row == x.id {
		return
	}
	next := &state{
		T: t, Row: x.id, Operation: x.operation, Joined: !x.lost, Gone: x.operation == changes.Delete, text: x.text, expires: x.expires,
	}
	if next.Gone {
		next.text = ""
	}
	if p != nil {
		next.Patched = patched(&p.entry)
	}
	if s != nil {
		next.Prior = s.T
		switch r.order(x, t, next.Patched, s) {
		case later:
			next.Doubtful = s.Doubtful && !r.certainlyLater(x, t, s)
			next.T = max(t, s.T)
		case unknown:
			if t < s.T {
				s.rival(next)
				s.Prior = max(s.Prior, t)
				putLater(&r.made, s.Row, r.madeBefore(s))
				putLater(&r.made, s.Row, x.madeBefore)
				r.changed[x.entity()] = true
				return
			}
			next.rival(s)
			putLater(&r.made, x.id, r.madeBefore(s))
		case sooner:
			return
		}
	}
	// A row that comes late may bear the time at which it was written, long after its change.
	next.Doubtful = next.Doubtful || p == nil && x.t >= r.meta.Enabled
	r.states[x.entity()] = next
	r.changed[x.entity()] = true
	putLater(&r.made, x.id, x.madeBefore)
}
