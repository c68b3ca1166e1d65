package app

import (
	"context"
	"errors"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
)

// midnight is how far Kong's clock may be from the plugin's.
const midnight = 5 * time.Minute

// Watch follows announced ids: from the trigger that named them, on the ledger's
// list, until the log has shown them.
type Watch struct {
	Bell *Bell

	app     *App
	missing func(n int) // counts ids that did not show up; may be nil
}

// NewWatch returns a watch whose bell waits for debounce before the first pull.
func (a *App) NewWatch(debounce time.Duration, missing func(n int)) *Watch {
	return &Watch{Bell: NewBell(debounce), app: a, missing: missing}
}

// Announce notes ids in the ledger, and returns those whose entries it does not
// know yet. A ring that was held up can be about what was delivered long since,
// which no tail would show again. at is when it was made.
func (w *Watch) Announce(ctx context.Context, ids []string, at time.Time) (fresh []string, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	// The ledger wants the day as well, and near midnight that may be either of two.
	entries := make([]audit.Entry, 0, 2*len(ids))
	for _, day := range []time.Time{at.Add(-midnight), at.Add(midnight)} {
		for _, id := range ids {
			e := audit.Entry{RequestID: id, Timestamp: day.Unix()}
			e.ID = audit.Identity(&e)
			entries = append(entries, e)
		}
	}
	outcomes, err := w.app.Store.Lookup(ctx, entries)
	switch {
	case audit.LedgerForgot(err):
		outcomes = make([]audit.Outcome, len(entries)) // the new one knows nothing; the next pass begins with it
	case err != nil:
		return nil, err
	}
	var done []string
	for i, id := range ids {
		if outcomes[i] == audit.New && outcomes[i+len(ids)] == audit.New {
			fresh = append(fresh, id)
		} else {
			done = append(done, id)
		}
	}
	return fresh, errors.Join(w.app.Store.Unannounce(ctx, done), w.app.Store.Announce(ctx, fresh, time.Now()))
}

// Sweep strikes off the ledger's list what has been seen, and says what is missing.
func (w *Watch) Sweep(ctx context.Context) {
	seen, lost := w.Bell.Settle()
	if len(lost) > 0 {
		if w.missing != nil {
			w.missing(len(lost))
		}
		w.app.Log.Warn("announced ids are not in the audit log", "count", len(lost), "ids", lost[:min(len(lost), 10)])
	}
	if len(seen) > 0 {
		if err := w.app.Store.Unannounce(ctx, seen); err != nil && ctx.Err() == nil {
			w.app.Log.Warn("list of announced ids not updated", "err", err)
		}
	}
}

// LoadAnnounced takes over the ids that the ledger has on its list.
func (w *Watch) LoadAnnounced(ctx context.Context) {
	w.Sweep(ctx)
	list, err := w.app.Store.Announced(ctx)
	if err != nil {
		if ctx.Err() == nil {
			w.app.Log.Warn("list of announced ids not read", "err", err)
		}
		return
	}
	w.Bell.Load(list)
}

// SecretsOf returns a function that reads the secrets of triggers anew each time, so
// that they can be rotated. It returns none if they cannot be read, and then every
// trigger is refused.
func (a *App) SecretsOf(secret config.Secret) func() []string {
	return func() []string {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		text, err := secret.Reveal(ctx)
		if err != nil {
			a.Log.Error("secret not readable, triggers are refused", "err", err)
			return nil
		}
		return config.SplitSecrets(text)
	}
}
