package daemon

import (
	"context"
	"net/http"
	"time"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// triggerHandler notes announced ids in the ledger, then rings the bell.
func (s *server) triggerHandler() http.Handler {
	set := s.app.Settings
	notify := func(ctx context.Context, ids []string) error {
		now := time.Now()
		fresh, err := s.watch.Announce(ctx, ids, now)
		if err == nil && (len(fresh) > 0 || len(ids) == 0) {
			s.watch.Bell.Ring(fresh, now)
		}
		return err
	}
	return trigger.NewHandler(trigger.Options{
		Secrets:          s.app.SecretsOf(set.TriggerSecret),
		EventHookSecrets: s.app.SecretsOf(set.EventHooksSecret),
		Unsigned:         !set.TriggerSecret.IsSet() && trigger.Loopback(set.Listen),
		ReserveNonce:     s.app.Store.ReserveNonce,
		Notify:           notify,
		Poll:             func() { s.watch.Bell.Ring(nil, time.Now()) },
		Rate:             set.TriggerRate,
		Observe:          func(path, outcome string) { s.metrics.triggers.WithLabelValues(path, outcome).Inc() },
		Logger:           s.log,
	})
}
