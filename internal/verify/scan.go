package verify

import (
	"context"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/lake"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

const (
	// overdueAfter is what an entry may be late beyond the schedule.
	overdueAfter = 5 * time.Minute
	// youngAge is the age in seconds up to which a running relay may be delivering
	// an entry that the ledger does not know, and settle how long it is given.
	youngAge = 5 * 60
	settle   = 5 * time.Second
	// ownSlack is how many seconds before the last pass's start the rows of its own
	// reads may be dated: the clocks of control planes differ.
	ownSlack = 5
)

// verification compares Kong's log with the ledger and the destination.
//
// It holds a page of the log, the names of what it found, and of the entries that
// are still to be compared with the destination a hash and a timestamp each, some
// 40 bytes. Where the log has an order those are 50,000 entries at most, or one
// second's; where it has none they are all that Kong holds.
type verification struct {
	app          *app.App
	log          *walk.Reader
	lake         *lake.Lake // nil: the destination is not asked
	since, until int64      // Unix seconds, until excluded; 0 leaves a side open
	grace        int64      // seconds
	reach        int64      // seconds after which a pass should have read an entry in any case
	slice        int        // entries: sliceEntries, but in tests
	progress     func(pipeline.Summary)

	marks  audit.Marks
	shown  bool  // the log has shown an entry that the marks name
	now    int64 // Kong's clock when the scan began
	report Report
	young  []audit.Entry // new to the ledger, and perhaps on their way: id and timestamp only

	order     walk.Order
	pending   map[key]int64 // of the open slice: timestamps, or notExpected
	low, high int64         // timestamps of its entries
	edge      int64         // where the slices end that have been compared
	begun     bool          // edge is set
	days      map[int64]int // entries by day, where the log has no order

	again       map[key]struct{} // dead or deferred, and not stored
	lost        map[key]int64    // delivered, and not at the destination
	first, last int64            // timestamps of what is missing
	capped      bool
	through     int64 // one before the oldest entry that is not accounted for, if capped
}

// run fills the report.
func (v *verification) run(ctx context.Context) error {
	begin := time.Now()
	if _, err := v.app.Store.Begin(ctx); err != nil {
		return err
	}
	var err error
	if v.marks, err = v.app.Store.Marks(ctx); err != nil {
		return err
	}
	v.reset()
	if err := v.log.Scan(ctx, v.since, v.until, func(s walk.Scanned) error { return v.page(ctx, s) }); err != nil {
		return err
	}
	if err := v.believe(ctx); err != nil {
		return err
	}
	if err := v.closeSlices(ctx); err != nil {
		return err
	}
	if err := v.lookAgain(ctx); err != nil {
		return err
	}
	if err := v.nameLost(ctx); err != nil {
		return err
	}
	r := &v.report
	if r.DeadLetters, r.DeferredEntries, err = v.app.Store.UndeliveredCounts(ctx); err != nil {
		return err
	}
	if err := v.capUndelivered(ctx); err != nil {
		return err
	}
	end := min(v.now, begin.Unix()) // Kong's clock may be ahead
	if v.until != 0 {
		end = min(end, v.until)
	}
	through := end - 1
	if v.capped {
		through = min(through, v.through)
	}
	r.Since, r.Until, r.CompleteThrough = app.Moment(v.since), app.Moment(end), app.Moment(max(through, 0))
	r.Seconds = time.Since(begin).Seconds()
	return nil
}

// believe returns audit.ErrForeignLog if the log is not the one that was read before:
// it shows none of the entries that the marks name and that Kong must still have. Those
// that the scan has not shown are asked for, as they may be of another time.
func (v *verification) believe(ctx context.Context) error {
	if v.shown || v.app.Settings.Adopt {
		return nil
	}
	first, last, n := int64(0), int64(0), 0
	for _, w := range v.marks.Witnesses {
		if !pipeline.Retained(w, v.now) {
			continue
		}
		if n++; n == 1 {
			first, last = w.At, w.At
		}
		first, last = min(first, w.At), max(last, w.At)
	}
	if n == 0 {
		return nil
	}
	err := v.log.Scan(ctx, first, last+1, func(s walk.Scanned) error {
		for i := range s.Entries {
			v.shown = v.shown || pipeline.Shown(v.marks.Witnesses, &s.Entries[i])
		}
		return nil
	})
	if err == nil && !v.shown {
		err = pipeline.ForeignLog(n)
	}
	return err
}

// capUndelivered takes account of dead letters and deferred entries that Kong no
// longer holds.
func (v *verification) capUndelivered(ctx context.Context) error {
	if v.report.window {
		return nil
	}
	dead, deferred, err := v.app.Store.OldestUndelivered(ctx)
	for _, t := range []time.Time{dead, deferred} {
		if !t.IsZero() {
			v.cap(t.Unix())
		}
	}
	return err
}

// reset forgets everything that was found.
func (v *verification) reset() {
	v.report = Report{window: v.since != 0 || v.until != 0}
	if v.lake != nil {
		v.report.Destination = &DestinationReport{}
	}
	v.young, v.begun, v.capped = nil, false, false
	v.pending, v.days, v.lost = map[key]int64{}, map[int64]int{}, map[key]int64{}
	v.again = map[key]struct{}{}
	v.first, v.last = 0, 0
}

func (v *verification) page(ctx context.Context, s walk.Scanned) error {
	if s.Restart {
		v.reset()
	}
	v.order, v.now, v.report.Order = s.Order, s.Now, s.Order.String()
	outcomes, err := v.app.Store.Lookup(ctx, s.Entries)
	if err != nil {
		return err
	}
	unstored, err := v.unstored(ctx, s.Entries, outcomes)
	if err != nil {
		return err
	}
	for i := range s.Entries {
		v.shown = v.shown || pipeline.Shown(v.marks.Witnesses, &s.Entries[i])
		if unstored[s.Entries[i].ID] {
			v.gone(&s.Entries[i])
		} else {
			v.entry(&s.Entries[i], outcomes[i])
		}
		if v.lake != nil {
			if err := v.hold(ctx, &s.Entries[i], outcomes[i]); err != nil {
				return err
			}
		}
	}
	if v.progress != nil {
		v.progress(pipeline.Summary{Read: v.report.Entries, New: v.report.Missing.Count + len(v.young), Delivered: v.report.Delivered})
	}
	return nil
}

// unstored returns the ids that the ledger calls dead or deferred and whose stored
// entries it has lost: nothing would put them again. Outcomes that changed meanwhile
// are brought up to date.
func (v *verification) unstored(ctx context.Context, entries []audit.Entry, outcomes []audit.Outcome) (map[string]bool, error) {
	var at []int
	var ids []string
	for i, o := range outcomes {
		if o == audit.Dead || o == audit.Deferred {
			at, ids = append(at, i), append(ids, entries[i].ID)
		}
	}
	if len(at) == 0 {
		return nil, nil
	}
	has, err := v.app.Store.HasUndelivered(ctx, ids)
	if err != nil {
		return nil, err
	}
	var lost []audit.Entry
	var lostAt []int
	for j, i := range at {
		if !has[j] {
			lost, lostAt = append(lost, entries[i]), append(lostAt, i)
		}
	}
	if len(lost) == 0 {
		return nil, nil
	}
	again, err := v.app.Store.Lookup(ctx, lost) // a relay may have delivered them since
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for j, o := range again {
		outcomes[lostAt[j]] = o
		if o == audit.Dead || o == audit.Deferred {
			found[lost[j].ID] = true
		}
	}
	return found, nil
}

// gone counts an entry that unstored has found.
func (v *verification) gone(e *audit.Entry) {
	v.report.Entries++
	v.report.Unstored.add(e.ID)
	v.again[keyOf(e.ID)] = struct{}{}
	v.span(e.Timestamp)
}

// entry counts an entry by what the ledger knows of it.
func (v *verification) entry(e *audit.Entry, o audit.Outcome) {
	r := &v.report
	r.Entries++
	if e.Verification == audit.VerificationFailed {
		r.SignatureFailed.add(e.ID)
	}
	switch o {
	case audit.New:
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

// unknown sorts an entry that is new to the ledger: it is not due, or missing, or
// may be on its way.
func (v *verification) unknown(e *audit.Entry) {
	switch {
	case !v.due(e):
		v.report.NotDue++
		v.cap(e.Timestamp)
	case v.now-e.Timestamp < youngAge && len(v.young) < maxNames:
		v.young = append(v.young, audit.Entry{ID: strings.Clone(e.ID), Timestamp: e.Timestamp})
	default:
		v.missing(e.ID, e.Timestamp)
	}
}

func (v *verification) missing(id string, timestamp int64) {
	v.report.Missing.add(id)
	v.span(timestamp)
}

// span notes when something was that is missing.
func (v *verification) span(timestamp int64) {
	if v.first == 0 && v.last == 0 {
		v.first, v.last = timestamp, timestamp
	}
	v.first, v.last = min(v.first, timestamp), max(v.last, timestamp)
	v.cap(timestamp)
}

func (v *verification) cap(timestamp int64) {
	if !v.capped || timestamp-1 < v.through {
		v.capped, v.through = true, timestamp-1
	}
}

// due tells whether a pass should have recorded an entry. In the second in which
// the last pass began, rows may have followed the ones it saw; the rows of its own
// reads always do. Without marks no pass has come to an end, or they were lost
// together with the ledger.
func (v *verification) due(e *audit.Entry) bool {
	m := v.marks
	if m.Cursor == 0 || v.now-e.Timestamp > v.reach {
		return true
	}
	slack := int64(0)
	if strings.HasPrefix(e.Path, "/audit/") {
		slack = ownSlack
	}
	return e.Timestamp < m.Cursor-slack || e.Timestamp <= m.Cursor && e.Timestamp < m.Completed-slack
}

// lookAgain gives a running relay a moment for what may have been on its way.
func (v *verification) lookAgain(ctx context.Context) error {
	if len(v.young) == 0 {
		return nil
	}
	t := time.NewTimer(settle)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	outcomes, err := v.app.Store.Lookup(ctx, v.young)
	if err != nil {
		return err
	}
	for i, o := range outcomes {
		if e := &v.young[i]; o == audit.New {
			v.missing(e.ID, e.Timestamp)
		} else {
			v.report.Entries-- // entry counts it once more
			v.entry(e, o)
		}
	}
	v.young = nil
	return nil
}
