package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// triggerHandler notes announced ids in the ledger, then rings the bell.
func (s *server) triggerHandler() http.Handler {
	set := s.app.settings
	notify := func(ctx context.Context, ids []string) error {
		now := time.Now()
		fresh, err := s.announce(ctx, ids, now)
		if err == nil && (len(fresh) > 0 || len(ids) == 0) {
			s.bell.ring(fresh, now)
		}
		return err
	}
	return trigger.NewHandler(trigger.Options{
		Secrets:          s.secretsOf(set.TriggerSecret),
		EventHookSecrets: s.secretsOf(set.EventHooksSecret),
		Unsigned:         !set.TriggerSecret.IsSet() && trigger.Loopback(set.Listen),
		ReserveNonce:     s.app.store.ReserveNonce,
		Notify:           notify,
		Poll:             func() { s.bell.ring(nil, time.Now()) },
		Rate:             set.TriggerRate,
		Observe:          func(path, outcome string) { s.metrics.triggers.WithLabelValues(path, outcome).Inc() },
		Logger:           s.log,
	})
}

// announce notes ids in the ledger, and returns those whose entries it does not
// know yet. A ring that was held up can be about what was delivered long since,
// which no tail would show again. at is when it was made.
func (s *server) announce(ctx context.Context, ids []string, at time.Time) (fresh []string, err error) {
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
	outcomes, err := s.app.store.Lookup(ctx, entries)
	switch {
	case errors.Is(err, audit.ErrLedgerReplaced):
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
	return fresh, errors.Join(s.app.store.Unannounce(ctx, done), s.app.store.Announce(ctx, fresh, time.Now()))
}

// secretsOf gives the handler its secrets anew each time, so that they can be
// rotated. With none to be had it refuses every trigger.
func (s *server) secretsOf(secret Secret) func() []string {
	return func() []string {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		text, err := secret.Reveal(ctx)
		if err != nil {
			s.log.Error("secret not readable, triggers are refused", "err", err)
			return nil
		}
		return splitSecrets(text)
	}
}

// sweep strikes off the ledger's list what has been seen, and says what is missing.
func (s *server) sweep(ctx context.Context) {
	seen, lost := s.bell.settle()
	if len(lost) > 0 {
		s.metrics.missing.Add(float64(len(lost)))
		s.log.Warn("announced ids are not in the audit log", "count", len(lost), "ids", lost[:min(len(lost), 10)])
	}
	if len(seen) > 0 {
		if err := s.app.store.Unannounce(ctx, seen); err != nil && ctx.Err() == nil {
			s.log.Warn("list of announced ids not updated", "err", err)
		}
	}
}

// loadAnnounced takes over the ids that the ledger has on its list.
func (s *server) loadAnnounced(ctx context.Context) {
	s.sweep(ctx)
	list, err := s.app.store.Announced(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("list of announced ids not read", "err", err)
		}
		return
	}
	s.bell.load(list)
}
