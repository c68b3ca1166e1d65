package daemon

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/health"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

func (s *server) triggerHandler() http.Handler {
	set := &s.app.Settings
	o := s.app.TriggerOptions()
	o.Unsigned = !set.TriggerSecret.IsSet() && trigger.Loopback(set.Listen)
	o.Notify = func(ctx context.Context, ids []string) error { return s.runner.Notify(ctx, ids, time.Now()) }
	o.Poll = s.runner.RequestPoll
	o.Observe = s.triggered
	return trigger.NewHandler(o)
}

func (s *server) triggered(path, outcome string) {
	s.metrics.triggers.WithLabelValues(path, outcome).Inc()
	switch outcome {
	case trigger.Accepted:
		s.report(health.Triggers, path, nil)
	case trigger.Unauthorized:
		s.report(health.Triggers, path, audit.WithHint(fmt.Errorf("triggers at %s are refused: their signature, time or password is wrong", path),
			fmt.Sprintf("give plugin and relay the same secret, and clocks that differ by less than %.0f minutes", trigger.Tolerance.Minutes())))
	}
}
