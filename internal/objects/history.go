package objects

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/changes"
)

// history says how much is known of an entity before a change. It is exact only where
// all of this holds:
//
//   - The row of a create or a delete says all by itself: there was nothing before, or
//     the row holds what there was. For an update, the state before was seen.
//   - It is the request's only row of the entity.
//   - The state before is of a request that has shown up as well, and no other row can
//     have been later than its own.
//   - Between the two rows, and so near that the order is in doubt by times of control
//     planes whose clocks differ, there is no other row of the entity, and no write without
//     rows that may have touched it, and no request that was announced and has not shown up.
//   - Nothing was missed since: no rows were purged unread, the log was read from there on.
//   - All of this was found after the write had waited for earlier ones to show up.
//   - The two states do not contradict it: the later one is not older by its own account,
//     they are of one entity, and what a PATCH did not name is the same.
func (r *round) history(x *row, p *pending) changes.History {
	e, s := &p.entry, r.before(x, p)
	switch x.operation {
	case changes.Create, changes.Delete:
		if r.alone(x, p) {
			return changes.Exact
		}
		return changes.Approximate
	}
	t := min(x.t, e.Timestamp)
	if !s.precedes(x) || t < s.T && r.order(x, t, nil, s) != later {
		return changes.Unavailable
	}
	if !p.settled || !r.certain(x, p) || r.unseenBetween(x, p, s) {
		return changes.Approximate
	}
	return changes.Exact
}

// certain reports whether the last known state of an entity is the one before an update,
// provided that no earlier write is still to show up.
func (r *round) certain(x *row, p *pending) bool {
	e, s := &p.entry, r.before(x, p)
	t, latest := min(x.t, e.Timestamp), max(x.t, e.Timestamp)
	if !s.precedes(x) || r.order(x, t, nil, s) != later {
		return false
	}
	return r.alone(x, p) && !e.TimestampGuessed && s.Joined && !s.Doubtful && latest-t <= lookback && s.T > r.meta.Gap+skew &&
		!r.touched(x, p, s, latest) && !r.contradicts(x, e, s, s.text)
}

// before returns the last known state of an entity, nil for none. Where the order of the last
// two is not known, it is the one that an update continues, if what a PATCH did not name is
// the same in one of them only.
func (r *round) before(x *row, p *pending) *state {
	s, e := r.states[x.entity()], &p.entry
	if s == nil || s.Rival == "" || patched(e) == nil || !r.certainlyLater(x, min(x.t, e.Timestamp), s) {
		return s
	}
	follows, followsRival := !r.contradicts(x, e, s, s.text), !r.contradicts(x, e, s, s.Rival)
	if follows == followsRival {
		return s
	}
	before := *s
	before.Doubtful, before.Rival = false, ""
	if followsRival {
		before.text = s.Rival
	}
	return &before
}

// alone reports whether a row is the only one of its entity that a write has.
func (r *round) alone(x *row, p *pending) bool {
	return !slices.ContainsFunc(p.rows, func(y *row) bool { return y != x && y.entity() == x.entity() })
}

// touched reports whether something else may have changed the entity in between.
func (r *round) touched(x *row, p *pending, s *state, latest int64) bool {
	near := func(t int64) bool { return t == 0 || t > s.T-skew && t < latest+skew }
	for _, o := range r.touches[x.entity()] {
		if o.id != x.id && o.id != s.Row && near(o.t) && (o.t < latest+margin || o.madeAfter.Before(x.madeBefore)) {
			return true
		}
	}
	named := sync.OnceValue(func() []string { return append(s.text.Names(), x.text.Names()...) })
	for _, o := range r.meta.Open {
		if near(o.T) && mayTouch(o.Method, o.Path, x.dao, x.key, named()) {
			return true
		}
	}
	for _, o := range r.pending {
		if o != p && len(o.rows) == 0 && near(undatedAsZero(&o.entry)) && mayTouch(o.entry.Method, o.entry.Path, x.dao, x.key, named()) {
			return true
		}
	}
	return false
}

// contradicts reports whether a row's state cannot follow another one.
func (r *round) contradicts(x *row, e *audit.Entry, s *state, text changes.State) bool {
	if was, ok := text.Number("updated_at"); ok {
		if is, ok := x.text.Number("updated_at"); ok && is < was && !r.announcedAfter(x, s) {
			return true
		}
	}
	if was, ok := text.Number("created_at"); ok {
		if is, ok := x.text.Number("created_at"); ok && is != was {
			return true
		}
	}
	names := patched(e)
	return names != nil && !within(differing(text, x.text), names)
}

// patched returns the names at the top of an entity that a request can have changed, or
// nil if that is not known.
func patched(e *audit.Entry) []string {
	if e.Method != http.MethodPatch || e.Payload == "" {
		return nil
	}
	names, ok := changes.Fields(e.Payload)
	if !ok || len(names) == 0 {
		return nil
	}
	if slices.Contains(names, "url") { // of a service
		names = append(names, "protocol", "host", "port", "path")
	}
	if e.RemovedFromPayload != "" {
		names = append(names, strings.Split(e.RemovedFromPayload, ",")...)
	}
	return names
}

// differing returns the names at the top of two states in which they differ, but for the
// time of the last change.
func differing(a, b changes.State) (names []string) {
	from, to := changes.Diff(a, b)
	for _, f := range slices.Concat(from, to) {
		if name, _, _ := strings.Cut(strings.TrimPrefix(f.Path, "/"), "/"); name != "updated_at" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func within(names, among []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(among, n) })
}

// askUnseen finds out which announced ids have not shown up, if that matters.
func (r *round) askUnseen(ctx context.Context) error {
	if r.opts.Announced == nil || len(r.pending) == 0 {
		r.unseenKnown = true
		return nil
	}
	list, err := r.opts.Announced(ctx)
	if err != nil {
		return err
	}
	var ask []audit.Entry
	for _, a := range list {
		id := requestID(a.ID)
		putLater(&r.announcedAt, id, a.At)
		if p := r.waits[a.ID]; p != nil && p.first.After(r.prevRead) && r.prevRead.Sub(a.At) > firstRow {
			r.lagged = r.now // its row was not there at the read before
		}
		if !r.wasSeen(id) && !r.rowsOf.has(id) {
			ask = append(ask, audit.Entry{ID: id, Timestamp: a.At.Unix()})
		}
	}
	if len(ask) > 0 {
		outcomes, err := r.opts.Ledger.Lookup(ctx, ask)
		if err != nil {
			return err
		}
		for i := range ask {
			if outcomes[i] == audit.NoOutcome {
				r.unseen = append(r.unseen, audit.Announcement{ID: ask[i].ID, At: time.Unix(ask[i].Timestamp, 0)})
			}
		}
	}
	r.unseenKnown = true
	return nil
}

// unseenBetween reports whether a request may have come in between that was announced and
// has not shown up. One that is missing for long was most likely no write, or its rows
// would be there: it does not count if the change is just what a PATCH asked for, or of a
// single field where it is not known what that was.
func (r *round) unseenBetween(x *row, p *pending, s *state) bool {
	if !r.unseenKnown {
		return true
	}
	ahead := int64(0) // Kong's clock from this machine's
	if r.date != 0 {
		ahead = r.date - r.now.Unix()
	}
	explained := p.entry.Method == http.MethodPatch && !r.contradicts(x, &p.entry, s, s.text) &&
		(patched(&p.entry) != nil || len(differing(s.text, x.text)) <= 1)
	for _, a := range r.unseen {
		if explained && r.now.Sub(a.At) > lost*time.Second {
			continue
		}
		if a.At.Unix()+ahead > s.T-skew-1 && a.At.Unix() <= p.first.Unix()+1 {
			return true
		}
	}
	return false
}
