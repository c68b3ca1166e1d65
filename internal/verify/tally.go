package verify

import (
	"strings"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// entry counts an entry by its outcome in the ledger.
func (v *verification) entry(e *audit.Entry, o audit.Outcome) {
	r := &v.report
	r.Entries++
	if e.Verification == audit.VerificationFailed {
		r.SignatureFailed.add(e.ID)
	}
	switch o {
	case audit.NoOutcome:
		v.unknown(e)
	case audit.Delivered:
		r.Delivered++
	case audit.Dead:
		r.Dead.add(e.ID)
		v.cap(e.Timestamp)
	case audit.Deferred:
		r.Deferred.add(e.ID)
		v.cap(e.Timestamp)
	case audit.Dropped:
		r.Dropped.add(e.ID)
	case audit.Own:
		r.Own++
	}
}

// unknown counts an entry that the ledger does not know: it is not due, on the way, or
// missing. If it may be delivered within a moment, it is looked up again before it counts.
func (v *verification) unknown(e *audit.Entry) {
	switch {
	case !v.due(e):
		v.report.NotDue++
		v.cap(e.Timestamp)
	case !v.waited && (v.now-e.Timestamp < youngAge || v.passReads(e)) && len(v.young) < MaxIDs:
		v.young = append(v.young, audit.Entry{ID: strings.Clone(e.ID), Path: strings.Clone(e.Path), Timestamp: e.Timestamp})
	case v.passReads(e):
		v.report.OnTheWay++
		v.cap(e.Timestamp)
	default:
		v.report.Missing.add(e.ID)
		v.gap(e.Timestamp)
	}
}

// passReads reports whether the pass that was under way when the scan began may read an
// entry: that pass is taken for a reconcile, which begins 25 hours before the marks or, before
// the first full one has ended, reads everything.
func (v *verification) passReads(e *audit.Entry) bool {
	m := &v.marks
	return v.passing && (m.FullAt == 0 || e.Timestamp >= min(m.Cursor, m.ReconciledThrough)-passLookback)
}

// gap notes the timestamp of an entry that is missing from the ledger or the destination.
func (v *verification) gap(timestamp int64) {
	v.gaps.add(timestamp)
	v.cap(timestamp)
}

// span is a number of timestamps, and the first and the last of them, in Unix seconds.
type span struct {
	n           int
	first, last int64
}

func (s *span) add(timestamp int64) {
	if s.n++; s.n == 1 {
		s.first, s.last = timestamp, timestamp
	}
	s.first, s.last = min(s.first, timestamp), max(s.last, timestamp)
}

// cap keeps [Report.CompleteThrough] before a timestamp.
func (v *verification) cap(timestamp int64) { v.through = min(v.through, timestamp-1) }

// due reports whether a pass should have recorded an entry. Rows of the second in which the
// last pass began may have come after those that it saw, and the rows of its own reads always
// do. Without marks everything is due: no pass has ended yet, or the ledger was emptied.
func (v *verification) due(e *audit.Entry) bool {
	m := v.marks
	if m.Cursor == 0 || m.Completed == 0 || v.now-e.Timestamp > v.reach {
		return true
	}
	slack := int64(0)
	if strings.HasPrefix(e.Path, "/audit/") {
		slack = ownSlack
	}
	return e.Timestamp < m.Cursor-slack || e.Timestamp <= m.Cursor && e.Timestamp < m.Completed-slack
}
