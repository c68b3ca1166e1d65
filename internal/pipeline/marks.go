package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// trusted returns marks without those that are far ahead of Kong's clock. They
// stem from a clock that was wrong when they were made, and to go on from there
// would skip what lies between.
func trusted(m audit.Marks, now int64) audit.Marks {
	limit := now + wideBack // clocks of control planes differ
	if m.FullAt > limit {
		m.FullAt = 0
	}
	if m.ReconciledThrough > limit {
		m.ReconciledThrough = m.FullAt
	}
	if m.Cursor > limit {
		m.Cursor = m.ReconciledThrough
	}
	return m
}

// setFloor decides how far back the pass reads. It is fixed from here on. Of a
// tail that needed no probe, Kong's clock is not known yet.
func (ps *pass) setFloor() {
	p, w, m := ps.p, ps.walk, &ps.marks
	if !w.began.IsZero() {
		ps.started = w.began.Unix()
		*m = trusted(*m, ps.started)
	}
	switch ps.req.Kind {
	case Window:
		w.floor, w.since = ps.req.Since, ps.req.Since
	case Tail:
		w.floor = p.tailFloor(m.Cursor)
	case Reconcile:
		ps.full = ps.req.Full || m.FullAt == 0 || m.ReconciledThrough == 0 || ps.started-m.FullAt >= fullEvery
		if !ps.full {
			w.floor = max(1, min(m.Cursor, m.ReconciledThrough)-reconcileBack)
		}
	}
	w.base = w.floor
	if ps.req.Kind == Reconcile && !ps.req.Full {
		ps.goOn()
	}
	w.floor, w.base = max(w.floor, p.opts.StartAt), max(w.base, p.opts.StartAt)
}

// tailFloor is the second from which a tail reads that goes on at a cursor.
func (p *Pipeline) tailFloor(cursor int64) int64 {
	if p.lastWide.IsZero() || time.Since(p.lastWide) >= wideEvery {
		p.lastWide = time.Now()
		return cursor - wideBack
	}
	return cursor - tailBack
}

// goOn takes up a reconcile that was cut short, if it was to read as much as this one.
func (ps *pass) goOn() {
	r, w := ps.marks.Resume, ps.walk
	if r == nil || ps.full && !r.Full {
		return
	}
	switch {
	case r.Order == w.order.String():
	case r.Order == noOrder.String() && w.order == newestFirst:
		w.order = noOrder // the probe does not tell these two apart
	default:
		return
	}
	ps.full, ps.started, ps.newest = r.Full, r.Started, r.Newest
	w.base, w.floor, w.start = r.Floor, r.Floor, r.Offset
	if w.order == oldestFirst {
		w.floor = max(r.Floor, r.From-tailBack)
	}
	ps.pos = w.position()
	ps.p.log.Info("going on where a reconcile was cut", "order", r.Order, "from", r.From)
}

// save writes how far the pass has come.
func (ps *pass) save(ctx context.Context, complete bool) error {
	now := ps.walk.began.Unix()
	m := trusted(ps.marks, now)
	ps.misled = ps.misled || m.Cursor != ps.marks.Cursor
	started := ps.started
	if started == 0 {
		started = now
	}
	reached := int64(0)
	switch {
	case ps.misled: // it did not begin where it should have
	case ps.pos.order == oldestFirst && complete:
		reached = ps.pos.last
	case ps.pos.order == oldestFirst:
		reached = ps.del.safe()
	case complete:
		// Rows that came after the start may have landed on pages already read.
		reached = min(max(ps.newest, ps.pos.newest), started)
	}
	m.Cursor = min(max(m.Cursor, reached), now)
	if complete {
		m.Completed = now
		if m.Cursor <= 0 && !ps.misled { // an empty log
			m.Cursor = max(1, now-wideBack)
		}
	}
	if ps.req.Kind == Reconcile {
		m.Resume = nil
		if complete {
			m.ReconciledThrough = min(max(m.ReconciledThrough, started), now)
			if ps.full {
				m.FullAt = min(started, now)
			}
		} else if m.Resume = ps.resume(now); m.Resume == nil {
			m.Resume = ps.marks.Resume
		}
	}
	if m == ps.marks {
		return nil
	}
	if err := ps.held.lease.SetMarks(ctx, m); err != nil {
		return fmt.Errorf("moving marks: %w", err)
	}
	ps.marks = m
	return nil
}

// rewind takes back what the pass has written so far: the order in which it read
// did not hold, so it has not come as far as it looked.
func (ps *pass) rewind(ctx context.Context) error {
	if ps.held == nil || ps.req.Kind == Window || ps.marks == ps.before {
		return nil
	}
	if err := ps.held.lease.SetMarks(ctx, ps.before); err != nil {
		return fmt.Errorf("taking marks back: %w", err)
	}
	ps.marks = trusted(ps.before, ps.walk.began.Unix())
	return nil
}

// resume says where this reconcile could go on, or nil if it has not come anywhere.
func (ps *pass) resume(now int64) *audit.Resume {
	r := &audit.Resume{
		Order: ps.pos.order.String(), Started: ps.started, Floor: ps.walk.base, Full: ps.full,
		Newest: max(ps.newest, ps.pos.newest),
	}
	if ps.pos.order == oldestFirst {
		if r.From = min(ps.del.safe(), now); r.From <= 0 {
			return nil
		}
		return r
	}
	if r.Offset = ps.del.safeOffset(); r.Offset == "" {
		return nil
	}
	return r
}

// finish saves marks for the last time.
func (ps *pass) finish(ctx context.Context, complete bool) error {
	if ps.req.DryRun || ps.walk.began.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseWithin)
	defer cancel()
	if err := ps.rememberOwn(ctx); err != nil {
		ps.p.log.Warn("own reads not noted, they will be delivered", "err", err)
	}
	if ps.req.Kind == Window {
		return nil
	}
	return ps.save(ctx, complete)
}

// rememberOwn notes this pass's reads in the ledger, so that a later process
// knows them. When Kong writes their rows is not known to the second, so near
// midnight they go into both days.
func (ps *pass) rememberOwn(ctx context.Context) error {
	own := ps.p.own.unnoted()
	if !ps.p.opts.SkipOwnReads || len(own) == 0 {
		return nil
	}
	const day, near = 24 * 60 * 60, 5 * 60
	now := ps.walk.began.Unix()
	var records []audit.Record
	for _, id := range own {
		for _, t := range []int64{now - near, now + near} {
			r := audit.Record{ID: id, Timestamp: t, Keep: ps.p.opts.RecordTTL, Outcome: audit.Own}
			if n := len(records); n > 0 && records[n-1].ID == id && records[n-1].Timestamp/day == t/day {
				continue
			}
			records = append(records, r)
		}
	}
	if err := ps.p.opts.Ledger.Record(ctx, records); err != nil {
		return err
	}
	ps.p.own.note(own)
	return nil
}
