package daemon

import (
	"context"
	"net/http"
	"time"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// triggerHandler takes triggers.
func (s *server) triggerHandler() http.Handler {
	set := s.app.Settings
	return trigger.NewHandler(trigger.Options{
		Secrets:          s.app.SecretsOf(set.TriggerSecret),
		EventHookSecrets: s.app.SecretsOf(set.EventHooksSecret),
		HTTPLogSecrets:   s.app.SecretsOf(set.HTTPLogSecret),
		Reread:           s.app.RereadSecrets(),
		Unsigned:         !set.TriggerSecret.IsSet() && trigger.Loopback(set.Listen),
		ReserveNonce:     s.app.Store.ReserveNonce,
		Notify: func(ctx context.Context, ids []string) error {
			return s.runner.Notify(ctx, ids, time.Now())
		},
		Poll:    s.runner.RequestPoll,
		Rate:    set.TriggerRate,
		Observe: s.triggered,
		Logger:  s.log,
	})
}
