package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// held is a lease while it is renewed.
type held struct {
	lease   Lease
	ttl     time.Duration
	renewed atomic.Pointer[moment] // when the last renewal that succeeded was asked for
	cancel  context.CancelCauseFunc
	stop    context.CancelFunc
	done    chan struct{}
}

// acquireEvery is how often a lease that another holds is asked for. One whose
// holder died is taken over soon after it has run out.
const acquireEvery = 250 * time.Millisecond

// moment is a time by both clocks. The monotonic one stands still while a machine
// is suspended; the other one does not, and may be set.
type moment struct{ monotonic, wall time.Time }

func thisMoment() moment {
	now := time.Now()
	return moment{monotonic: now, wall: now.Round(0)}
}

// acquire waits for the lease a bounded time, then renews it until release. The
// context that it returns ends with audit.ErrLeaseLost when the lease does.
func acquire(ctx context.Context, ask func(context.Context, bool) (Lease, error), ttl, wait time.Duration) (context.Context, *held, error) {
	begin := time.Now()
	// One request: more of them would keep the holder at it.
	for request := true; ; request = false {
		asked := thisMoment()
		lease, err := ask(ctx, request)
		if err == nil {
			h := &held{lease: lease, ttl: ttl, done: make(chan struct{})}
			h.renewed.Store(&asked)
			leased, cancel := context.WithCancelCause(ctx)
			renewing, stop := context.WithCancel(leased)
			h.cancel, h.stop = cancel, stop
			go h.renew(renewing)
			return leased, h, nil
		}
		if !errors.Is(err, audit.ErrLeaseHeld) || time.Since(begin) >= wait {
			return nil, nil, err
		}
		if err := sleep(ctx, min(acquireEvery, max(wait-time.Since(begin), time.Millisecond))); err != nil {
			return nil, nil, err
		}
	}
}

func (h *held) renew(ctx context.Context) {
	defer close(h.done)
	tick := time.NewTicker(h.ttl / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked := thisMoment()
		attempt, cancel := context.WithTimeout(ctx, h.ttl/4)
		err := h.lease.Renew(attempt)
		cancel()
		switch {
		case err == nil:
			h.renewed.Store(&asked)
		case errors.Is(err, audit.ErrLeaseLost), audit.LedgerForgot(err):
			h.cancel(err)
			return
		}
		if err := h.valid(); err != nil {
			h.cancel(err)
			return
		}
	}
}

// valid tells whether the lease can still be relied on: a process that was frozen
// for longer than the lease must not go on putting.
func (h *held) valid() error {
	now, renewed := thisMoment(), h.renewed.Load()
	since := max(now.monotonic.Sub(renewed.monotonic), now.wall.Sub(renewed.wall))
	if since > h.ttl {
		return fmt.Errorf("%w: not renewed for %s", audit.ErrLeaseLost, since.Round(time.Millisecond))
	}
	return nil
}

// end stops renewing. The lease is released or runs out.
func (h *held) end() {
	h.stop()
	<-h.done
	h.cancel(context.Canceled)
}
