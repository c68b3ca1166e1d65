package objects

import (
	"time"

	"github.com/kong-cloudtrail/relay/internal/changes"
)

// sequence says whether a row belongs to a later change than a state.
type sequence int

const (
	unknown sequence = iota
	later
	sooner
)

// order says whether a row with the time t belongs to a later change than a state. fields are
// those that the row's request named, or nil if they are not known.
//
// Each control plane writes the time by its own clock, in whole seconds, and writes some rows
// late. Times that are far apart tell the order, and so do nearer ones if the relay noticed the
// two changes in that order. Otherwise the changes themselves may tell it: an entity is created
// before it is updated, and of two requests that named the fields they changed, the second one
// keeps what the first one did.
func (r *round) order(x *row, t int64, fields []string, s *state) sequence {
	switch {
	case r.certainlyLater(x, t, s):
		return later
	case t <= s.T-margin && (s.Operation != changes.Create || t <= s.T-skew):
		return unknown // it came late, or a clock is wrong
	case s.Operation == changes.Create && x.operation == changes.Update:
		return later
	case s.Operation == changes.Update && x.operation == changes.Create:
		return sooner
	case s.Operation != changes.Update || x.operation != changes.Update || fields == nil || s.Patched == nil || t < s.Prior+skew:
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

// certainlyLater reports whether times show that a row with the time t belongs to a later change
// than a state. Announcements can show it whatever the clocks of control planes say.
func (r *round) certainlyLater(x *row, t int64, s *state) bool {
	if t >= s.T+skew {
		return true
	}
	made, ok := r.made.get(s.Row)
	switch {
	case !ok || t <= s.T-skew:
		return false
	case t >= s.T+margin && !x.madeAfter.IsZero() && !x.madeAfter.Before(made):
		return true
	}
	return r.announcedAfter(x, s)
}

// announcedAfter reports whether a row's request was announced so long after a state was made
// that the row's change must be later.
func (r *round) announcedAfter(x *row, s *state) bool {
	made, ok := r.made.get(s.Row)
	return ok && x.announced.Sub(made) >= announcedWithin // a zero time is long before
}

// madeBefore returns a time before which a state was made, by this machine's clock.
func (r *round) madeBefore(s *state) time.Time {
	if t, ok := r.made.get(s.Row); ok {
		return t
	}
	return r.now
}

// noticed bounds the time at which a row's change was made, by this machine's clock. The change
// was made before its row was seen and before its request was announced. It was made at most
// shownWithin before a read that did not show the row, and at most announcedWithin before an
// announcement that came before the row was seen.
func (r *round) noticed(x *row) {
	announced, told := r.announcedAt.get(x.request)
	x.madeBefore = x.first
	if !x.absent.IsZero() {
		x.madeAfter = x.absent.Add(-shownWithin)
	}
	if !told || announced.After(x.first) {
		return
	}
	x.announced, x.madeBefore = announced, announced
	if at := announced.Add(-announcedWithin); at.After(x.madeAfter) {
		x.madeAfter = at
	}
}
