// Package lease takes the lease under which passes are made, renews it, and shares it
// among the passes that one process makes at the same time.
package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

const (
	// acquireEvery is how often a process tries to take a lease that another one holds. The
	// lease of a holder that died is thus taken soon after it has run out.
	acquireEvery = 250 * time.Millisecond
	// renewEvery is how often a holder renews the lease, and so learns of rerun requests.
	renewEvery = 250 * time.Millisecond
	// releaseWithin bounds giving the lease up.
	releaseWithin = 3 * time.Second
)

// Options of a [Keeper]. Acquire is required.
type Options struct {
	// Acquire takes the lease. If another process holds it, Acquire fails with
	// audit.ErrLeaseHeld, and if requestRerun is set, it requests a rerun from that process.
	Acquire func(ctx context.Context, requestRerun bool) (ledger.Lease, error)
	// Begin opens the ledger. It is called before the lease is taken anew, never while
	// it is held. May be nil.
	Begin func(ctx context.Context) error
	// Rerun is called when another process requests a rerun while the lease is held. May be
	// nil.
	Rerun func()
	// TTL is what the ledger was opened with, its LeaseTTL: how long a renewal may take and
	// when the lease counts as lost rest on it. Default: ledger.DefaultLease.
	TTL    time.Duration
	Logger *slog.Logger
}

// Keeper shares one lease among the passes of a process. It is safe for concurrent use.
type Keeper struct {
	opts Options
	log  *slog.Logger

	lock    *semaphore.Weighted // guards the fields below; held while waiting for the lease
	current *Held
	users   int // of current
}

// NewKeeper returns a keeper that holds nothing.
func NewKeeper(o Options) *Keeper {
	o.TTL = cmp.Or(o.TTL, ledger.DefaultLease)
	return &Keeper{opts: o, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), lock: semaphore.NewWeighted(1)}
}

// Do calls f while the process holds the lease. Calls of Do at the same time share the
// lease, and the last of them to end gives it up. If another process holds the lease, Do
// waits for it, at most for the duration wait, and then fails with audit.ErrLeaseHeld; if
// requestRerun is set, it has requested one rerun from that process. If the lease is lost,
// the context of f ends with the cause audit.ErrLeaseLost, or with one for which
// audit.LedgerForgot holds.
//
// rerun reports whether another process has requested a rerun for which Options.Rerun was
// not called.
func (k *Keeper) Do(ctx context.Context, requestRerun bool, wait time.Duration, f func(ctx context.Context, h *Held) error) (rerun bool, err error) {
	h, err := k.enter(ctx, requestRerun, wait)
	if err != nil {
		return false, err
	}
	leased, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(h.held, func() { cancel(h.loss()) })
	err = f(leased, h)
	stop()
	cancel(nil)
	return k.leave(context.WithoutCancel(ctx), h), err
}

// enter returns the lease, and takes it if the process does not hold it yet.
func (k *Keeper) enter(ctx context.Context, requestRerun bool, wait time.Duration) (*Held, error) {
	if k.lock.Acquire(ctx, 1) != nil {
		return nil, context.Cause(ctx)
	}
	defer k.lock.Release(1)
	if k.current == nil || k.current.Valid() != nil {
		h, err := k.acquire(ctx, requestRerun, wait)
		if err != nil {
			return nil, err
		}
		k.current, k.users = h, 0
	}
	k.users++
	return k.current, nil
}

// leave gives the lease up once no call of Do uses it.
func (k *Keeper) leave(ctx context.Context, h *Held) (rerun bool) {
	_ = k.lock.Acquire(ctx, 1) // ctx does not end
	defer k.lock.Release(1)
	if k.current != h { // it was lost, and has been taken anew since
		h.stop()
		return false
	}
	if k.users--; k.users > 0 {
		return false
	}
	k.current = nil
	h.stop()
	ctx, cancel := context.WithTimeout(ctx, releaseWithin)
	defer cancel()
	kept, err := h.lease.Release(ctx)
	rerun = h.requested || kept
	for kept && err == nil {
		// Release kept the lease because of a rerun request. Give it up all the same: the
		// caller makes the tail under a new lease, and other processes get their turn before.
		kept, err = h.lease.Release(ctx)
	}
	if err != nil && !errors.Is(err, audit.ErrLeaseLost) {
		k.log.Warn("lease not released, it will run out by itself", "err", err)
	}
	return rerun
}

// acquire waits for the lease, takes it and begins to renew it.
func (k *Keeper) acquire(ctx context.Context, requestRerun bool, wait time.Duration) (*Held, error) {
	if k.opts.Begin != nil {
		if err := k.opts.Begin(ctx); err != nil {
			return nil, fmt.Errorf("opening the ledger: %w", err)
		}
	}
	// A request with each attempt would keep the holder making passes.
	for begin := time.Now(); ; requestRerun = false {
		asked := thisMoment()
		l, err := k.opts.Acquire(ctx, requestRerun)
		if err == nil {
			return k.hold(ctx, l, asked), nil
		}
		if !errors.Is(err, audit.ErrLeaseHeld) || time.Since(begin) >= wait {
			return nil, fmt.Errorf("getting the lease: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(min(acquireEvery, max(wait-time.Since(begin), time.Millisecond))):
		}
	}
}

// hold begins to renew a lease. asked is when it was asked for.
func (k *Keeper) hold(ctx context.Context, l ledger.Lease, asked moment) *Held {
	h := &Held{lease: l, ttl: k.opts.TTL, done: make(chan struct{})}
	h.renewed.Store(&asked)
	h.held, h.end = context.WithCancelCause(context.WithoutCancel(ctx))
	go h.renew(k.opts.Rerun)
	return h
}

// Held is a lease that is being renewed. It is safe for concurrent use.
type Held struct {
	lease   ledger.Lease
	ttl     time.Duration
	renewed atomic.Pointer[moment] // when the last renewal that succeeded was asked for
	done    chan struct{}          // closed once renewing has stopped

	requested bool // a rerun that Options.Rerun was not called for; to be read once renewing has stopped

	held context.Context         //nolint:containedctx // ends with the lease, with the cause if it was lost
	end  context.CancelCauseFunc // of held
}

// moment is a time by both clocks. The monotonic one stands still while a machine
// is suspended; the other one does not, and may be set.
type moment struct{ monotonic, wall time.Time }

func thisMoment() moment {
	now := time.Now()
	return moment{monotonic: now, wall: now.Round(0)}
}

// SetMarks writes marks if the lease is still held.
func (h *Held) SetMarks(ctx context.Context, m audit.Marks) error {
	return h.lease.SetMarks(ctx, m)
}

// Valid returns an error if the lease can no longer be relied on. A process that was
// frozen for longer than the lease lasts must not go on putting.
func (h *Held) Valid() error {
	if err := h.loss(); err != nil {
		return err
	}
	now, renewed := thisMoment(), h.renewed.Load()
	since := max(now.monotonic.Sub(renewed.monotonic), now.wall.Sub(renewed.wall))
	if since > h.ttl {
		return fmt.Errorf("%w: not renewed for %s", audit.ErrLeaseLost, since.Round(time.Millisecond))
	}
	return nil
}

// loss returns why the lease was lost, nil while it is held.
func (h *Held) loss() error { return context.Cause(h.held) }

// renew renews the lease until it is lost or given up, and calls rerun for rerun requests.
func (h *Held) renew(rerun func()) {
	defer close(h.done)
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-h.held.Done():
			return
		case <-tick.C:
		}
		asked := thisMoment()
		attempt, cancel := context.WithTimeout(h.held, h.ttl/4)
		requested, err := h.lease.Renew(attempt)
		cancel()
		if err == nil {
			h.renewed.Store(&asked)
		} else if !errors.Is(err, audit.ErrLeaseLost) && !audit.LedgerForgot(err) {
			err = h.Valid()
		}
		if err != nil {
			h.end(err)
			return
		}
		if requested && rerun != nil {
			rerun()
		} else if requested {
			h.requested = true
		}
	}
}

// stop stops renewing. The caller releases the lease, or lets it run out.
func (h *Held) stop() {
	h.end(audit.ErrLeaseLost)
	<-h.done
}
