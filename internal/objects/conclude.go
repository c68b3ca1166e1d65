package objects

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/changes"
)

// touch is a row of an entity that is not taken into account yet.
type touch struct {
	t            int64 // 0: not known
	row, request string
}

// step is what is taken into account at once: the rows of one write, or one row that
// came late.
type step struct {
	t     int64
	write *pending // nil: late
	rows  []*row
}

// conclude decides which writes wait no longer, and says what they changed.
func (r *round) conclude(ctx context.Context) error {
	steps, err := r.lateRows(ctx)
	if err != nil {
		return err
	}
	if err := r.recall(ctx); err != nil {
		return err
	}
	r.touches = map[string][]touch{}
	for _, x := range r.rows {
		r.touches[x.entity()] = append(r.touches[x.entity()], touch{x.t, x.id, x.request})
	}
	for _, rows := range r.undated { // of requests that have not shown up
		for i := range rows {
			if x := &rows[i]; r.rows[x.id] == nil {
				r.touches[x.entity()] = append(r.touches[x.entity()], touch{0, x.id, x.request})
			}
		}
	}
	if err := r.askUnseen(ctx); err != nil {
		r.log.Debug("announced ids not read, no history is exact", "err", err)
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
	old := !r.w.Live && r.date != 0 && !p.entry.TimestampGuessed && p.entry.Timestamp <= r.date-settled
	p.settled = old || waited >= firstRow
	if old || waited >= firstRow+apart {
		return time.Time{}
	}
	poll := r.now.Add(min(max(waited/2, minAgain), apart))
	full := p.first.Add(firstRow)
	if len(p.rows) == 0 {
		if waited >= firstRow {
			return time.Time{}
		}
		return earlier(poll, full)
	}
	last := time.Time{}
	for _, x := range p.rows {
		if x.first.After(last) {
			last = x.first
		}
	}
	if at := last.Add(apart); at.After(r.now) {
		return at
	}
	for _, b := range before { // what is older goes first
		for _, x := range b.rows {
			for _, y := range p.rows {
				if x.entity() == y.entity() {
					return poll
				}
			}
		}
	}
	if p.settled = p.settled || r.allAnnounced(p); p.settled {
		return time.Time{}
	}
	if slices.ContainsFunc(p.rows, func(x *row) bool { return x.operation == changes.Update && r.certain(x, p) }) {
		return earlier(poll, full)
	}
	return time.Time{}
}

// allAnnounced reports whether every write is announced these days, this one too, and
// everything that was announced has shown up: then no earlier write is still to come.
func (r *round) allAnnounced(p *pending) bool {
	if !r.unseenKnown {
		return false
	}
	if !r.told.has(p.entry.ID) {
		r.lastUntold = r.now
	}
	if r.now.Sub(r.lastUntold) < untoldFor {
		return false
	}
	for _, a := range r.unseen {
		if a.At.Unix() <= p.first.Unix()+1 && r.now.Sub(a.At) < lost*time.Second {
			return false
		}
	}
	return true
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// lateRows returns the rows that no write waits for any more: their event has gone, or
// their request is lost. Rows whose request may still show up are left alone.
func (r *round) lateRows(ctx context.Context) (steps []step, err error) {
	if len(r.others) == 0 {
		return nil, nil
	}
	outcomes, err := r.requests(ctx, r.others)
	if err != nil {
		return nil, err
	}
	late := 0
	for _, x := range r.others {
		_, waits := r.firstSeen(x.request)
		switch {
		case outcomes[x.request] || r.wasSeen(x.request) && !waits:
		case !waits && r.w.Through > 0 && x.t < r.w.Through-lost:
			x.lost = true
		default:
			continue
		}
		if x.t >= r.meta.Enabled && !r.said[x.request] {
			late++
		}
		steps = append(steps, step{t: x.t, rows: []*row{x}})
		r.meta.closeOpen(x.request)
	}
	r.others = nil
	r.late += late
	return steps, nil
}

// requests returns which requests of rows the ledger knows.
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

// applyOthers takes rows into account that no write waits for, so that they are not kept
// until all have been read.
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

// recall fetches the states of the entities that rows are of.
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

// apply goes over steps in the order of time: it says what writes changed, and what is
// known of entities moves on.
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

// say puts into an entry what its request changed.
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

// change says what a row changed.
func (r *round) change(x *row, p *pending) changes.Change {
	c := changes.Change{Entity: x.dao, Key: x.key, Name: x.text.Name(), Operation: x.operation, History: r.history(x, p)}
	switch {
	case x.operation == changes.Create:
		c.From, c.To = changes.Diff("", x.text)
	case x.operation == changes.Delete:
		c.From, c.To = changes.Diff(x.text, "")
	case c.History == changes.Unavailable:
		c.From, c.To = changes.Diff("", x.text)
	default:
		c.From, c.To = changes.Diff(r.states[x.entity()].text, x.text)
	}
	if f := r.opts.Observer.Changed; f != nil {
		f(string(c.History))
	}
	return c
}

// history says how much is known of an entity before a change. It is exact only where
// all of this holds:
//
//   - The row of a create or a delete says all by itself: there was nothing before, or
//     the row holds what there was. For an update, the state before was seen.
//   - It is the request's only row of the entity.
//   - The state before is of a request that has shown up as well, and no other row can
//     have been later than its own.
//   - Between the two rows, and so near that the order is in doubt, there is no other row
//     of the entity, and no write without rows that may have touched it, and no request
//     that was announced and has not shown up.
//   - Nothing was missed since: no rows were purged unread, the log was read from there on.
//   - All of this was found after the write had waited for earlier ones to show up.
//   - The two states do not contradict it: the later one is not older by its own account,
//     they are of one entity, and what a PATCH did not name is the same.
func (r *round) history(x *row, p *pending) changes.History {
	e, s := &p.entry, r.states[x.entity()]
	switch x.operation {
	case changes.Create, changes.Delete:
		if r.alone(x, p) == 1 {
			return changes.Exact
		}
		return changes.Approximate
	}
	t := min(x.t, e.Timestamp)
	if s == nil || s.Large || s.Gone || x.known || s.Row == x.id || t < s.T && order(x, t, nil, s) != later {
		return changes.Unavailable
	}
	if !p.settled || !r.certain(x, p) || r.announced(x, p, s) {
		return changes.Approximate
	}
	return changes.Exact
}

// certain reports whether the last known state of an entity is the one before an update,
// provided that no earlier write is still to show up.
func (r *round) certain(x *row, p *pending) bool {
	e, s := &p.entry, r.states[x.entity()]
	t, latest := min(x.t, e.Timestamp), max(x.t, e.Timestamp)
	if s == nil || s.Large || s.Gone || x.known || s.Row == x.id || order(x, t, nil, s) != later {
		return false
	}
	return r.alone(x, p) == 1 && !e.TimestampGuessed && s.Joined && !s.Doubtful && latest-t <= lookback && s.T > r.meta.Gap &&
		!r.touched(x, p, s, latest) && !r.contradicts(x, e, s)
}

// alone returns how many rows of the entity a write has.
func (r *round) alone(x *row, p *pending) (n int) {
	for _, y := range p.rows {
		if y.entity() == x.entity() {
			n++
		}
	}
	return n
}

// touched reports whether something else may have changed the entity in between.
func (r *round) touched(x *row, p *pending, s *state, latest int64) bool {
	near := func(t int64) bool { return t == 0 || t > s.T-margin && t < latest+margin }
	for _, o := range r.touches[x.entity()] {
		if o.row != x.id && o.row != s.Row && near(o.t) {
			return true
		}
	}
	var names []string
	named := func() []string {
		if names == nil {
			names = append(s.text.Names(), x.text.Names()...)
		}
		return names
	}
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

// contradicts reports whether two states cannot follow each other.
func (r *round) contradicts(x *row, e *audit.Entry, s *state) bool {
	if was, ok := s.text.Number("updated_at"); ok {
		if is, ok := x.text.Number("updated_at"); ok && is < was {
			return true
		}
	}
	if was, ok := s.text.Number("created_at"); ok {
		if is, ok := x.text.Number("created_at"); ok && is != was {
			return true
		}
	}
	names := patched(e)
	return names != nil && !within(differing(s.text, x.text), names)
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

// sequence says whether a row is of a later change than a state.
type sequence int

const (
	unknown sequence = iota
	later
	sooner
)

// order says whether a row, of a time, is of a later change than a state. Where the times
// do not tell, the two may: an entity is made before it is changed, and of two requests
// that named the fields they changed, the second one keeps what the first one did.
// fields are those that the row's request named, nil if that is not known.
func order(x *row, t int64, fields []string, s *state) sequence {
	switch {
	case t >= s.T+margin:
		return later
	case t <= s.T-margin:
		return unknown // it came late, or a clock is wrong
	case s.Operation == changes.Create && x.operation == changes.Update:
		return later
	case s.Operation == changes.Update && x.operation == changes.Create:
		return sooner
	case s.Operation != changes.Update || x.operation != changes.Update || fields == nil || s.Patched == nil:
		return unknown
	}
	differ := differing(s.text, x.text)
	is, was := within(differ, fields), within(differ, s.Patched)
	switch {
	case is && !was:
		return later
	case was && !is:
		return sooner
	}
	return unknown
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
		r.told.add(requestID(a.ID))
		if id := requestID(a.ID); !r.wasSeen(id) && !r.rowsOf.has(id) {
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

// announced reports whether a request may have come in between that was announced and
// has not shown up. One that is missing for long was most likely no write, or its rows
// would be there: it does not count if the change is just what the request asked for.
func (r *round) announced(x *row, p *pending, s *state) bool {
	if !r.unseenKnown {
		return true
	}
	ahead := int64(0) // Kong's clock from this machine's
	if r.date != 0 {
		ahead = r.date - r.now.Unix()
	}
	explained := patched(&p.entry) != nil && !r.contradicts(x, &p.entry, s)
	for _, a := range r.unseen {
		if explained && r.now.Sub(a.At) > lost*time.Second {
			continue
		}
		if a.At.Unix()+ahead > s.T-margin-1 && a.At.Unix() <= p.first.Unix()+1 {
			return true
		}
	}
	return false
}

// advance moves on what is known of a row's entity. p is nil for a row that came late.
func (r *round) advance(x *row, p *pending) {
	if x.known {
		return
	}
	r.counted = append(r.counted, x)
	s, t := r.states[x.entity()], x.t
	if p != nil {
		t = max(t, p.entry.Timestamp)
	}
	if x.key == "" || s != nil && s.Row == x.id {
		return
	}
	next := &state{
		T: t, Request: x.request, Row: x.id, Operation: x.operation, Joined: !x.lost, Gone: x.operation == changes.Delete, text: x.text, expires: x.expires,
	}
	if next.Gone {
		next.text = ""
	}
	if p != nil {
		next.Patched = patched(&p.entry)
	}
	if s != nil {
		switch order(x, t, next.Patched, s) {
		case later:
			next.Doubtful = s.Doubtful && t < s.T+margin
		case unknown:
			next.Doubtful = true
			if t < s.T {
				s.Doubtful = true
				r.changed[x.entity()] = true
				return
			}
		case sooner:
			return
		}
	}
	// A row that comes late may have the time at which it was written, long after its edit.
	next.Doubtful = next.Doubtful || p == nil && x.t >= r.meta.Enabled
	r.states[x.entity()] = next
	r.changed[x.entity()] = true
}

// save makes the ledger remember what this call has found, before any event goes: what
// was said of a write is said again if its event has to be put again.
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

// remember stores items in their order, as many at once as every server takes. What was
// said of a write comes before the states that go on from it.
func (r *round) remember(ctx context.Context, items []audit.Item) error {
	for len(items) > 0 {
		n, size := 0, 0
		for n < len(items) && (n == 0 || size+len(items[n].Value) <= maxRequest) {
			size += len(items[n].Key) + len(items[n].Value)
			n++
		}
		dropped, err := r.opts.Memory.Remember(ctx, r.version, items[:n], r.opts.MaxEntities)
		if err != nil {
			return fmt.Errorf("remembering entities: %w", err)
		}
		r.version++
		items = items[n:]
		if dropped > 0 && r.now.Sub(r.full) > time.Hour {
			r.full = r.now
			r.log.Warn("more entities than are remembered, the next change of the oldest ones has no history", "count", r.opts.MaxEntities)
		}
	}
	return nil
}

// worthIt reports whether how far rows were read is worth a write by itself.
func (r *round) worthIt() bool {
	was := &r.Joiner.meta
	return was.Enabled == 0 || r.meta.Gap != was.Gap || r.meta.Newest.ID != was.Newest.ID || len(r.meta.Open) != len(was.Open) || r.meta.Through-was.Through >= lookback
}

// count records the rows that were taken into account.
func (r *round) count(ctx context.Context) error {
	if len(r.counted) > 0 {
		records := make([]audit.Record, 0, len(r.counted))
		for _, x := range r.counted {
			rec := audit.Record{ID: x.id, Timestamp: x.t, Keep: max(0, x.expires.Sub(r.now)), Outcome: audit.Delivered}
			if !x.dated {
				rec.Timestamp = 1
			}
			records = append(records, rec)
		}
		if err := r.opts.Ledger.Record(ctx, records); err != nil {
			return fmt.Errorf("recording %d rows of changed entities: %w", len(records), err)
		}
		for _, x := range r.counted {
			r.applied.add(x.id)
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
	for id, at := range r.rowFirst {
		if r.now.Sub(at) > maxFirst {
			delete(r.rowFirst, id)
		}
	}
	return nil
}
