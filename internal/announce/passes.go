package announce

import (
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// maxDelivering is the number of tails that may deliver what they have read at the same time.
const maxDelivering = 8

// Start is a pass that is to be made.
type Start struct {
	Kind audit.PassKind
	// Standby is set if this pass was left to the relay that held the lease, whose lease has
	// run out unless that relay has renewed it. If it has, it makes the pass: do not request
	// a rerun.
	Standby bool
	// Forced is set if the reconcile is to be made even if another relay has recently made one.
	Forced bool
}

// Next returns the pass that is due, which then counts as under way until
// [Scheduler.Ended]. If none is due, it returns none and the time at which to ask again
// unless something happens before. A zero time means that nothing is planned.
//
// A tail may start while a reconcile is under way, or while other tails deliver what they
// have read: an entry that the destination does not accept at once must not keep later ones
// waiting. Everything else is made one after the other.
func (s *Scheduler) Next(now time.Time) (Start, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	start, at := s.planned(now)
	if start.Kind == audit.NoPass || at.After(now) {
		return Start{}, at
	}
	return s.begin(now, start), time.Time{}
}

// Planned returns when [Scheduler.Next] has a pass to start, which may be before now.
// A zero time means that nothing is planned.
func (s *Scheduler) Planned(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, at := s.planned(now)
	return at
}

// planned returns the pass that comes next, and when. s.mu is held.
func (s *Scheduler) planned(now time.Time) (next Start, at time.Time) {
	if s.tailing || s.delivering >= maxDelivering {
		return Start{}, time.Time{}
	}
	plan := func(start Start, t time.Time) {
		if !t.IsZero() && (at.IsZero() || at.After(now) && t.Before(at)) {
			next, at = start, t
		}
	}
	if !s.reconciling && s.delivering == 0 {
		plan(Start{Kind: audit.Reconcile, Forced: s.reconcileForced}, s.reconcileAt)
		if s.standby != audit.NoPass {
			plan(Start{Kind: s.standby, Standby: true}, s.standbyAt)
		}
	}
	s.cancelTail()
	// A tail that must wait until after the end of the search would find nothing more.
	if t := later(s.nextTail, s.tailNotBefore); !s.nextTail.IsZero() && s.searching(t) {
		plan(Start{Kind: audit.Tail}, t)
	}
	return next, at
}

// begin marks a pass as under way. s.mu is held.
func (s *Scheduler) begin(now time.Time, start Start) Start {
	s.standby = audit.NoPass
	if start.Kind == audit.Reconcile {
		s.reconciling, s.reconcileAt, s.reconcileForced = true, time.Time{}, false
		return start
	}
	s.tailing, s.tailForced = true, s.tailRequested || start.Standby
	s.tailPlanned = s.nextTail
	s.tailRequested = false
	s.planRepeat(now)
	return start
}

// Result is how a pass ended. At most one of LeaseHeld, Failed and Blocked is set.
type Result struct {
	Began time.Time
	// LogRead is set if [Scheduler.TailRead] was called for the tail.
	LogRead bool
	// LeaseHeld is set if another relay has the lease: for LeaseLeft, unless it renews it.
	LeaseHeld bool
	LeaseLeft time.Duration
	Failed    bool
	// Blocked is set if the tail could not be made beside a reconcile of a log without order.
	Blocked bool
	// Unordered is set if the log has no order, so that the tail read all of it.
	Unordered bool
	// Rerun is set if another relay requested a rerun while the lease was being released:
	// one more tail is needed.
	Rerun bool
	// Reconciled is the start of a recent reconcile that made this one unnecessary, or zero.
	Reconciled time.Time
}

// Ended takes the end of a pass that [Scheduler.Next] started.
func (s *Scheduler) Ended(now time.Time, p audit.PassKind, r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == audit.Reconcile {
		s.reconciling = false
		s.tailNotBefore = time.Time{} // also for a tail that was blocked
	} else if r.LogRead {
		s.delivering--
	} else {
		s.tailing = false
	}
	switch {
	case r.LeaseHeld:
		s.heldByOther(now, p, r.LeaseLeft)
	case r.Failed:
		s.retry(now, p)
	case r.Blocked:
		s.requestTail(now, now)
		s.tailNotBefore = now.Add(blockedRetry)
	default:
		s.succeeded(now, p, r)
	}
	if r.Rerun {
		s.requestTail(now, now)
	}
}

// TailRead notes that the tail under way has read the log, so that the next one may begin
// while this one delivers. [Scheduler.Ended] is still to be called for it.
func (s *Scheduler) TailRead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tailing = false
	s.delivering++
}

// succeeded takes the end of a pass that did not fail. s.mu is held.
func (s *Scheduler) succeeded(now time.Time, p audit.PassKind, r Result) {
	if s.failed == p || p == audit.Reconcile {
		s.failed, s.retryAfter = audit.NoPass, firstRetry
	}
	if p == audit.Reconcile {
		began := r.Began
		if !r.Reconciled.IsZero() { // a tail instead: nothing was read
			s.requestTail(now, now)
			began = r.Reconciled
		}
		if s.opts.Schedule > 0 {
			s.reconcileAt = later(began.Add(s.opts.Schedule), now)
		}
		return
	}
	s.tailNotBefore = time.Time{}
	if r.Unordered {
		s.tailNotBefore = now.Add(UnorderedPause(now.Sub(r.Began)))
	}
}

// UnorderedPause returns how long to wait before the next tail of a log without order, if
// the last one took that long.
func UnorderedPause(took time.Duration) time.Duration { return (unorderedShare - 1) * took }

// heldByOther leaves the pass to the relay that holds the lease, and plans to take over
// when that lease has run out. s.mu is held.
func (s *Scheduler) heldByOther(now time.Time, p audit.PassKind, left time.Duration) {
	s.failed, s.retryAfter = audit.NoPass, firstRetry
	s.standbyAt = now.Add(max(left, heldRetry))
	if s.standby != audit.Reconcile {
		s.standby = p
	}
	if p == audit.Reconcile {
		if s.opts.Schedule > 0 {
			s.reconcileAt = now.Add(s.opts.Schedule)
		}
		return
	}
	s.tailNotBefore = now.Add(heldRetry)
}

// retry plans a pass that failed. s.mu is held.
func (s *Scheduler) retry(now time.Time, p audit.PassKind) {
	after := s.retryAfter
	s.retryAfter = min(2*s.retryAfter, lastRetry)
	if s.opts.Schedule > 0 {
		after = min(after, s.opts.Schedule)
	}
	at := now.Add(after)
	s.failed, s.failedAt = p, now
	s.tailNotBefore = at
	if p == audit.Reconcile {
		s.reconcileAt = at
		return
	}
	s.tailRequested = true
	s.nextTail = at
}

// bringRetryForward makes the pass that failed again soon. s.mu is held.
func (s *Scheduler) bringRetryForward(now time.Time) {
	if s.failed == audit.NoPass || s.reconciling || s.tailing || s.delivering > 0 {
		return
	}
	at := later(now.Add(s.opts.Debounce), s.failedAt.Add(retryGap))
	if s.tailNotBefore.After(at) {
		s.tailNotBefore = at
	}
	if s.failed == audit.Reconcile && s.reconcileAt.After(at) {
		s.reconcileAt = at
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
