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

// history says how much is known of an entity before a change. It is exact only if all of
// these conditions hold:
//
//   - The row of a create or a delete is enough by itself: there was nothing before, or
//     the row holds what there was. For an update, the state before was seen.
//   - It is the request's only row of the entity.
//   - The request of the state before has shown up as well, and no other row can be later
//     than the row of that state.
//   - Between the two rows, and as near to them as the clocks of control planes may differ,
//     there is no other row of the entity, no write without rows that may have touched it,
//     and no request that was announced and has not shown up.
//   - Nothing was missed since the state before: no rows were purged unread, and the log was
//     read from there on.
//   - All of this was found after the write had waited for earlier ones to show up.
//   - The two states do not contradict it: updated_at does not go back, created_at is the
//     same, and so is what a PATCH did not name.
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
// provided that every earlier write has shown up.
func (r *round) certain(x *row, p *pending) bool {
	e, s := &p.entry, r.before(x, p)
	t, latest := min(x.t, e.Timestamp), max(x.t, e.Timestamp)
	if !s.precedes(x) || r.order(x, t, nil, s) != later {
		return false
	}
	return r.alone(x, p) && !e.TimestampGuessed && s.Joined && !s.Doubtful && latest-t <= lookback && s.T > r.meta.Gap+skew &&
		!r.touched(x, p, s, latest) && !r.contradicts(x, e, s, s.text)
}

// before returns the last known state of an entity, or nil. If the order of the last two is not
// known, it returns the one that a PATCH continues, which is the only one of the two that has
// the same values in all fields that the PATCH did not name.
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

// alone reports whether a row is its write's only one of that entity.
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

// contradicts reports whether a row's state cannot come after another state.
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

// patched returns the top-level fields of an entity that a request can have changed, or nil if
// they are not known.
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

// differing returns the top-level fields in which two states differ, without updated_at.
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

// askUnseen finds out which announced ids have not shown up, if a write waits.
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
		if p := r.waits[a.ID]; p != nil && p.first.After(r.prevRead) && r.prevRead.Sub(a.At) > firstRowWait {
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

// unseenBetween reports whether a request that was announced and has not shown up may have
// come in between. A request that is missing for long was most likely no write, or its rows
// would be there: it does not count if the change is just what a PATCH asked for, or, if that
// is not known, a change of a single field.
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
		if explained && r.now.Sub(a.At) > lostAfter*time.Second {
			continue
		}
		if a.At.Unix()+ahead > s.T-skew-1 && a.At.Unix() <= p.first.Unix()+1 {
			return true
		}
	}
	return false
}
