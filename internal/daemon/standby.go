package daemon

import (
	"context"
	"time"

	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// standby is a pass that has to wait until another relay's lease is free. Its
// holder may be dead: what it was doing is then taken over as soon as its lease
// has run out.
type standby struct {
	kind pipeline.Kind // "": nothing waits
	at   time.Time     // when the lease runs out, unless it is renewed
}

func (s *standby) add(kind pipeline.Kind, left time.Duration) {
	s.at = time.Now().Add(max(left, heldRetry))
	if s.kind != pipeline.Reconcile {
		s.kind = kind
	}
}

// done strikes off what a pass has done; a reconcile does what a tail would.
func (s *standby) done(kind pipeline.Kind) {
	if kind == pipeline.Reconcile || kind == s.kind {
		s.kind = ""
	}
}

// leaseLeft is how long another relay's lease lasts. A ledger that does not say
// is asked by the pass itself.
func (s *server) leaseLeft(ctx context.Context) time.Duration {
	left, err := s.app.Store.LeaseLeft(ctx)
	if err != nil {
		s.log.Debug("lease not looked at", "err", err)
		return 0
	}
	return left
}
