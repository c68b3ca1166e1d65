package runner

import (
	"context"
	"errors"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// announceSkew is how far the clocks of Kong and of whoever announces may be apart.
const announceSkew = 5 * time.Minute

// Notify takes a trigger that was sent at a time: it notes the ids in the ledger, and then
// asks for a poll. It is durable once it returns nil. A trigger without ids asks for
// one as well.
func (r *Runner) Notify(ctx context.Context, ids []string, at time.Time) error {
	fresh, err := r.Announce(ctx, ids, at)
	if err == nil && (len(fresh) > 0 || len(ids) == 0) {
		r.opts.Scheduler.Notify(time.Now(), fresh)
		signal(r.wake)
	}
	return err
}

// RequestPoll asks for a poll without anything to look for, like a trigger that names
// no id. It contacts nobody.
func (r *Runner) RequestPoll() {
	r.opts.Scheduler.Notify(time.Now(), nil)
	signal(r.wake)
}

// Announce notes ids in the ledger, and returns those that are worth a poll. It leaves out
// own reads, and ids that are delivered already: a trigger that was held up may name
// entries that no tail shows again.
func (r *Runner) Announce(ctx context.Context, ids []string, at time.Time) (fresh []string, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	// The ledger looks up an id by its day as well, and near midnight there are two.
	entries := make([]audit.Entry, 0, 2*len(ids))
	for _, day := range []time.Time{at.Add(-announceSkew), at.Add(announceSkew)} {
		for _, id := range ids {
			e := audit.Entry{RequestID: id, Timestamp: day.Unix()}
			e.ID = audit.Identity(&e)
			entries = append(entries, e)
		}
	}
	outcomes, err := r.opts.Ledger.Lookup(ctx, entries)
	switch {
	case audit.LedgerForgot(err):
		outcomes = make([]audit.Outcome, len(entries)) // the new one knows nothing; the next pass begins with it
	case err != nil:
		return nil, err
	}
	own, err := r.opts.Ledger.AreOwnReads(ctx, ids)
	if err != nil {
		own = make([]bool, len(ids)) // then they cost a poll
	}
	var done []string
	for i, id := range ids {
		if outcomes[i] == audit.NoOutcome && outcomes[i+len(ids)] == audit.NoOutcome && !own[i] {
			fresh = append(fresh, id)
		} else {
			done = append(done, id)
		}
	}
	return fresh, errors.Join(r.opts.Ledger.Unannounce(ctx, done), r.opts.Ledger.Announce(ctx, fresh, time.Now()))
}

// sweep strikes ids that were seen off the ledger's list, and reports missing ones to the
// observer. What the ledger did not confirm is struck off the next time.
func (r *Runner) sweep(ctx context.Context) {
	s := r.opts.Scheduler
	if lost := s.Expire(time.Now()); len(lost) > 0 {
		r.log.Warn("announced ids are not in the audit log", "count", len(lost), "ids", lost[:min(len(lost), 10)])
		if f := r.opts.Observer.Missing; f != nil {
			f(lost)
		}
	}
	seen := s.ToStrikeOff()
	if len(seen) == 0 {
		return
	}
	asking, cancel := context.WithTimeout(ctx, ledgerWithin)
	defer cancel()
	if err := r.opts.Ledger.Unannounce(asking, seen); err != nil {
		if ctx.Err() == nil {
			r.log.Debug("list of announced ids not updated", "err", err) // the ledger's state says why
		}
		return
	}
	s.StruckOff(time.Now(), seen)
}

// readList takes over the ids that the ledger has on its list.
func (r *Runner) readList(ctx context.Context) {
	r.sweep(ctx)
	began := time.Now()
	asking, cancel := context.WithTimeout(ctx, ledgerWithin)
	defer cancel()
	list, err := r.opts.Ledger.Announced(asking)
	if err != nil {
		if ctx.Err() == nil {
			r.log.Debug("list of announced ids not read", "err", err)
		}
		return
	}
	r.opts.Scheduler.Listed(time.Now(), began, list)
}
