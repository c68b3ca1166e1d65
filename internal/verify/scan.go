package verify

import (
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"time"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

const (
	// overdueAfter is how much longer than --schedule an entry may have no outcome.
	overdueAfter = 5 * time.Minute
	// An entry that the ledger does not know and that is at most youngAge seconds old may
	// be on its way, if a relay is running. It is looked up again after youngWait.
	youngAge  = 5 * 60
	youngWait = 5 * time.Second
	// passLookback is how far before the marks a reconcile begins, in seconds.
	passLookback = 25 * 60 * 60
	// ownSlack is how many seconds before the start of a pass the rows of its own reads may
	// be dated, as the clocks of control planes differ.
	ownSlack = 5
)

// verification compares Kong's log with the ledger and the destination.
//
// It holds a page of the log, the ids that it reports and, if the destination is asked, 16
// bytes for each entry that Kong holds.
type verification struct {
	Options

	app         *app.App
	log         *walk.Reader
	destination *app.Holdings // nil: the destination is not asked
	reach       int64         // seconds within which a pass should have read an entry

	marks   audit.Marks
	passing bool  // a pass was under way when the scan began, and has not ended
	shown   bool  // the log has shown an entry that the marks name
	now     int64 // Kong's clock when the scan began
	report  Report
	young   []audit.Entry // not in the ledger, and perhaps on their way; with id, path and timestamp only
	waited  bool          // young was looked up again

	held     *index         // entries that Kong holds
	low      int64          // the oldest timestamp of them
	ttl      int64          // the greatest time to live of them, in seconds
	strays   map[uint64]int // of each id at the destination that Kong does not hold, by hash: its number of events, at most 2
	unsorted []audit.Entry  // strays that were not looked up in the ledger yet

	again   map[uint64]struct{} // entries that are dead or deferred according to the ledger, which does not hold them; by hash
	lost    map[uint64]struct{} // entries that are delivered according to the ledger, and that the destination does not hold; by hash
	gaps    span                // timestamps of everything that is missing
	through int64               // one second before the oldest entry that is not accounted for
}

// run fills the report.
func (v *verification) run(ctx context.Context) error {
	begun := time.Now()
	if err := v.app.Store.Begin(ctx); err != nil {
		return err
	}
	var err error
	if v.marks, err = v.app.Store.Marks(ctx); err != nil {
		return err
	}
	left, err := v.app.Store.LeaseLeft(ctx)
	if err != nil {
		return err
	}
	v.passing = left > 0
	v.reset()
	if err := v.log.Scan(ctx, v.Since, v.Until, func(s walk.Step) error { return v.page(ctx, s) }); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{v.checkWitnesses, v.lookAgain, v.compare, v.nameLost, v.findFailing, v.countUndelivered} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	r := &v.report
	end := min(v.now, begun.Unix()) // Kong's clock may be ahead
	if v.Until != 0 {
		end = min(end, v.Until)
	}
	through := min(end-1, v.through)
	if r.Entries == 0 && v.Since == 0 {
		through = 0 // a log without any entry proves nothing
	}
	r.Since, r.Until, r.CompleteThrough = moment(v.Since), moment(end), moment(max(through, 0))
	r.Seconds = time.Since(begun).Seconds()
	return nil
}

func moment(second int64) string { return app.Moment(app.UnixTime(second)) }

// checkWitnesses returns audit.ErrLogMismatch if the log is not the one that was read
// before: it shows none of the entries that the marks name and that Kong must still have. If
// the scan has shown none of them, which it need not with --since or --until, checkWitnesses
// reads the log around their times.
func (v *verification) checkWitnesses(ctx context.Context) error {
	if v.shown || v.app.Settings.Adopt {
		return nil
	}
	var retained span
	for _, w := range v.marks.Witnesses {
		if pipeline.Retained(w, v.now) {
			retained.add(w.At)
		}
	}
	if retained.n == 0 {
		return nil
	}
	err := v.log.Scan(ctx, retained.first, retained.last+1, func(s walk.Step) error {
		for i := range s.Entries {
			v.shown = v.shown || pipeline.Shown(v.marks.Witnesses, &s.Entries[i])
		}
		return nil
	})
	if err == nil && !v.shown {
		err = pipeline.LogMismatch(retained.n)
	}
	return err
}

// findFailing sets what keeps entries from being delivered: a dependency that a running relay
// calls failing, if no pass was completed during its outage, or else passes that fail.
func (v *verification) findFailing(ctx context.Context) error {
	m, err := v.app.Store.Marks(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	outages, err := v.app.Store.Outages(ctx, now.Add(-time.Hour))
	if err != nil {
		return err
	}
	for _, o := range outages {
		if app.StopsDelivery(&o) && o.Lasts(now) && (m.FailedSince > 0 || o.From.Unix() >= m.Completed) {
			v.report.Failing = fmt.Sprintf("%s has been failing since %s: %s", o.Dependency, app.Moment(o.From), o.Cause)
			return nil
		}
	}
	left, err := v.app.Store.LeaseLeft(ctx)
	if err == nil && left == 0 && m.FailedSince > 0 { // a pass that is under way may be the one that succeeds
		v.report.Failing = "passes have been failing since " + moment(m.FailedSince) + "; relay once says why"
	}
	return err
}

// countUndelivered counts dead letters and deferred entries, including those that Kong no
// longer holds.
func (v *verification) countUndelivered(ctx context.Context) error {
	counts, err := v.app.Store.UndeliveredCounts(ctx)
	v.report.DeadLetters, v.report.DeferredEntries = counts.Dead, counts.Deferred
	if err != nil || v.report.window {
		return err
	}
	for u, err := range v.app.Store.UndeliveredEntries(ctx) {
		switch {
		case audit.IsUnreadable(err):
			v.report.Unreadable.add(u.Entry.ID)
			if !slices.Contains(v.report.Dead.IDs, u.Entry.ID) && !slices.Contains(v.report.Deferred.IDs, u.Entry.ID) {
				v.cap(0) // of an unknown time
			}
		case err != nil:
			return err
		default:
			v.cap(u.Entry.Timestamp)
		}
	}
	return nil
}

// reset forgets everything that was found.
func (v *verification) reset() {
	v.report = Report{window: v.Since != 0 || v.Until != 0}
	if v.destination != nil {
		v.report.Destination = &DestinationReport{Name: v.destination.Name}
	}
	v.young, v.through, v.unsorted = nil, math.MaxInt64, nil
	v.held, v.strays, v.lost, v.again = &index{seed: maphash.MakeSeed()}, map[uint64]int{}, map[uint64]struct{}{}, map[uint64]struct{}{}
	v.low, v.ttl, v.gaps = 0, 0, span{}
}

func (v *verification) page(ctx context.Context, s walk.Step) error {
	if s.Restart {
		v.reset()
	}
	v.now, v.report.Order = s.Now, s.Order.String()
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
			v.countUnstored(&s.Entries[i])
		} else {
			v.entry(&s.Entries[i], outcomes[i])
		}
		if v.destination != nil {
			v.hold(&s.Entries[i], outcomes[i])
		}
	}
	if err := v.withoutChanges(ctx, s.Entries, outcomes); err != nil {
		return err
	}
	if v.Progress != nil {
		var sum pipeline.Summary
		sum.Read, sum.New, sum.Delivered = v.report.Entries, v.report.Missing.Count+len(v.young), v.report.Delivered
		v.Progress(sum)
	}
	return nil
}

// withoutChanges counts the entries that were delivered without what their request changed.
func (v *verification) withoutChanges(ctx context.Context, entries []audit.Entry, outcomes []audit.Outcome) error {
	if !v.app.Settings.Objects {
		return nil
	}
	var ids []string
	for i := range entries {
		if outcomes[i] == audit.Delivered && entries[i].IsWrite() {
			ids = append(ids, entries[i].ID)
		}
	}
	marked, err := v.app.WithoutChanges(ctx, ids)
	if err != nil {
		return err
	}
	for i, id := range ids {
		if marked[i] {
			v.report.WithoutChanges.add(id)
		}
	}
	return nil
}

// hold adds an entry to those that are compared with the destination.
func (v *verification) hold(e *audit.Entry, o audit.Outcome) {
	if v.report.Entries == 1 {
		v.low = e.Timestamp
	}
	v.low, v.ttl = min(v.low, e.Timestamp), max(v.ttl, e.TTL)
	state := int64(0)
	if o == audit.Delivered {
		state = expected
	}
	v.held.add(e.ID, e.Timestamp, state)
}

// unstored returns the ids of the entries that are dead or deferred according to the ledger,
// and that the ledger nevertheless does not hold, so that no pass would put them again. It
// updates outcomes that have changed in the meantime.
func (v *verification) unstored(ctx context.Context, entries []audit.Entry, outcomes []audit.Outcome) (map[string]bool, error) {
	undelivered := func(o audit.Outcome) bool { return o == audit.Dead || o == audit.Deferred }
	var at []int
	var asked []audit.Entry
	var ids []string
	for i, o := range outcomes {
		if undelivered(o) {
			at, asked, ids = append(at, i), append(asked, entries[i]), append(ids, entries[i].ID)
		}
	}
	has, err := v.app.Store.HasUndelivered(ctx, ids)
	if err != nil || !slices.Contains(has, false) {
		return nil, err
	}
	again, err := v.app.Store.Lookup(ctx, asked) // a relay may have delivered some in the meantime
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for j, i := range at {
		outcomes[i] = again[j]
		found[ids[j]] = !has[j] && undelivered(again[j])
	}
	return found, nil
}

// countUnstored counts an entry that unstored has returned.
func (v *verification) countUnstored(e *audit.Entry) {
	v.report.Entries++
	v.report.Unstored.add(e.ID)
	v.again[v.held.hash(e.ID)] = struct{}{}
	v.gap(e.Timestamp)
}

// lookAgain waits a moment for a running relay to deliver the young entries, and looks them
// up again. It comes before the destination is asked, which must hold what was delivered
// meanwhile.
func (v *verification) lookAgain(ctx context.Context) error {
	if len(v.young) == 0 {
		return nil
	}
	select {
	case <-time.After(youngWait):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	left, err := v.app.Store.LeaseLeft(ctx)
	if err != nil {
		return err
	}
	if v.passing && left == 0 { // the pass should have delivered what it read, but not what came later
		v.passing = false
		if v.marks, err = v.app.Store.Marks(ctx); err != nil {
			return err
		}
	}
	outcomes, err := v.app.Store.Lookup(ctx, v.young)
	if err != nil {
		return err
	}
	v.waited = true
	for i, o := range outcomes {
		if i := v.held.find(v.young[i].ID); v.destination != nil && o == audit.Delivered {
			i.set(expected)
		}
		v.report.Entries-- // v.entry counts it again
		v.entry(&v.young[i], o)
	}
	return nil
}
