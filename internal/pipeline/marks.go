package pipeline

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// trusted returns marks without those that are far ahead of Kong's clock. Such marks
// were made when that clock was wrong, and a pass that went on from them would skip
// what lies between.
func trusted(m audit.Marks, kongTime int64) audit.Marks {
	limit := kongTime + clockDisagreement
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

// setBounds decides how far back the pass reads, once for the whole pass. A tail that
// needed no probe does not know Kong's clock yet.
func (ps *pass) setBounds() {
	p, m := ps.p, &ps.marks
	if t := ps.walk.KongTime(); !t.IsZero() {
		ps.kongStart = t.Unix()
		*m = trusted(*m, ps.kongStart)
	}
	b := walk.Bounds{Until: ps.req.Until}
	switch ps.req.Kind {
	case audit.Tail:
		b.Floor = p.tailFloor(m.Cursor)
	case audit.Reconcile:
		ps.full = ps.req.Full || m.FullAt == 0 || m.ReconciledThrough == 0 || ps.kongStart-m.FullAt >= fullEvery
		if !ps.full {
			b.Floor = max(1, min(m.Cursor, m.ReconciledThrough)-reconcileLookback)
		}
	default: // a window
		b.Floor, b.Since = ps.req.Since, ps.req.Since
	}
	b.RestartFloor = b.Floor
	if ps.req.Kind == audit.Reconcile && !ps.req.Full {
		b = ps.resumed(b)
	}
	b.Floor, b.RestartFloor = max(b.Floor, p.opts.StartAt), max(b.RestartFloor, p.opts.StartAt)
	ps.bounds = b
}

// tailFloor returns the second from which a tail reads that continues at a cursor.
func (p *Pipeline) tailFloor(cursor int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	floor := cursor - tailLookback
	if p.lastWide.IsZero() || time.Since(p.lastWide) >= wideEvery {
		p.lastWide = time.Now()
		floor = cursor - wideLookback
	}
	if p.heldFrom != 0 {
		floor = min(floor, p.heldFrom)
	}
	return floor
}

// resumed returns the bounds of a reconcile that continues where an earlier one was
// cut short. It returns b unless that one was meant to read as much as this one.
func (ps *pass) resumed(b walk.Bounds) walk.Bounds {
	r, w := ps.marks.Resume, ps.walk
	if r == nil || ps.full && !r.Full {
		return b
	}
	switch {
	case r.Order == w.Order().String():
	case r.Order == walk.Unordered.String() && w.Order() == walk.NewestFirst:
		w.ReadIn(walk.Unordered) // the probe does not tell these two apart
	default:
		return b
	}
	ps.full, ps.kongStart, ps.newest = r.Full, r.Started, r.Newest
	b.RestartFloor, b.Floor, b.Offset = r.Floor, r.Floor, r.Offset
	if w.Order() == walk.OldestFirst {
		b.Floor = max(r.Floor, r.From-tailLookback)
	}
	ps.pos = w.Position()
	ps.p.log.Info("going on where a reconcile was cut", "order", r.Order, "from", r.From)
	return b
}

// reached returns the Unix second up to which every entry that Kong has shown has an
// outcome, or 0 if that is not known. The cursor must not pass it, or entries would be
// skipped. A pass is complete if it has come to the end of the log and all that it read
// has an outcome. kongStart is when it began, by Kong's clock.
func (ps *pass) reached(complete bool, kongStart int64) int64 {
	if ps.untrustedStart {
		return 0
	}
	through := int64(0)
	switch {
	case ps.pos.Order == walk.OldestFirst && complete:
		through = ps.pos.Last
	case ps.pos.Order == walk.OldestFirst:
		through = ps.del.Safe()
	case complete:
		// Rows that came after the start may have landed on pages already read.
		through = min(max(ps.newest, ps.pos.Newest), kongStart)
	}
	// Whatever has no outcome yet stays after it: in a pass that is complete, writes that
	// wait for what they changed.
	if oldest := ps.del.Unfinished(); oldest > 0 {
		through = min(through, oldest-1)
	}
	return through
}

// save writes how far the pass has come.
func (ps *pass) save(ctx context.Context, complete bool) error {
	walkStart := ps.walk.KongTime().Unix()
	m := trusted(ps.marks, walkStart)
	ps.untrustedStart = ps.untrustedStart || m.Cursor != ps.marks.Cursor
	kongStart := ps.kongStart // earlier than walkStart if the pass continues one that was cut
	if kongStart == 0 {
		kongStart = walkStart
	}
	m.Cursor = min(max(m.Cursor, ps.reached(complete, kongStart)), walkStart)
	m.FailedSince = 0
	if complete {
		m.Completed = walkStart
		m.Witnesses = ps.witnesses.next()
		if m.Cursor <= 0 && !ps.untrustedStart { // an empty log
			// Bounded by this machine's clock: rows may be older than Kong's clock says.
			m.Cursor = max(1, min(walkStart, time.Now().Unix())-clockDisagreement)
		}
	}
	if ps.req.Kind == audit.Reconcile {
		m.Resume = nil
		if complete {
			m.ReconciledThrough = min(max(m.ReconciledThrough, kongStart), walkStart)
			// A log that has never shown an entry may be one that something hides for a moment. Reading
			// all of it again costs a page, while there is none.
			if ps.full && (ps.pos.Last != 0 || ps.pos.Newest != 0 || len(m.Witnesses) > 0) {
				m.FullAt = min(kongStart, walkStart)
			}
		} else if m.Resume = ps.resume(walkStart); m.Resume == nil {
			m.Resume = ps.marks.Resume
		}
	}
	if !complete && m.Cursor != 0 { // a pass that gets nowhere makes no marks
		m.FailedSince = ps.before.FailedSince
	}
	if reflect.DeepEqual(m, ps.marks) {
		return nil
	}
	if err := ps.lease.SetMarks(ctx, m); err != nil {
		return fmt.Errorf("moving marks: %w", err)
	}
	ps.marks = m
	return nil
}

// rewind restores the marks that the pass began with: the order in which it read did
// not hold, so it has not read as far as it seemed.
func (ps *pass) rewind(ctx context.Context) error {
	if !ps.movesMarks() || reflect.DeepEqual(ps.marks, ps.before) {
		return nil
	}
	if err := ps.lease.SetMarks(ctx, ps.before); err != nil {
		return fmt.Errorf("taking marks back: %w", err)
	}
	ps.marks = ps.before
	if now := ps.walk.KongTime(); !now.IsZero() {
		ps.marks = trusted(ps.before, now.Unix())
	}
	return nil
}

// resume returns where a later reconcile can continue this one, or nil if this one has
// not got anywhere.
func (ps *pass) resume(walkStart int64) *audit.Resume {
	r := &audit.Resume{
		Order: ps.pos.Order.String(), Started: ps.kongStart, Floor: ps.bounds.RestartFloor, Full: ps.full,
		Newest: max(ps.newest, ps.pos.Newest),
	}
	if ps.pos.Order == walk.OldestFirst {
		if r.From = min(ps.del.Safe(), walkStart); r.From <= 0 {
			return nil
		}
		return r
	}
	if r.Offset = ps.del.SafeOffset(); r.Offset == "" {
		return nil
	}
	return r
}

// finish saves the marks at the end of the pass. If the log is not the one that was read
// before, or was not reached, it restores them. Either way they say whether passes fail.
func (ps *pass) finish(ctx context.Context, err error) error {
	if !ps.movesMarks() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, saveWithin)
	defer cancel()
	if failed(err) && ps.before.FailedSince == 0 {
		ps.before.FailedSince = time.Now().Unix()
	}
	if ps.walk.KongTime().IsZero() && ps.before.Cursor == 0 {
		// Marks would be bound to an address of Kong that may have been mistyped.
		return nil
	}
	if ps.walk.KongTime().IsZero() || errors.Is(err, audit.ErrLogMismatch) {
		return ps.rewind(ctx)
	}
	return ps.save(ctx, err == nil)
}

// failed reports whether a pass with this error failed, rather than was stopped, lost the
// lease or ran out of time.
func failed(err error) bool {
	return err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, audit.ErrLeaseLost) &&
		(!errors.Is(err, ErrOutOfTime) || audit.Hint(err) != "")
}
