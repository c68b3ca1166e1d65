package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

const (
	// idleAfter is how long a sender without work stays: a configuration that is
	// gone leaves no goroutine. go-pdk tells an instance nothing about its end.
	idleAfter = time.Minute
	// giveUpAfter is how long ids are kept for a relay that cannot be rung, after
	// the last event. The relay finds their entries on its schedule.
	giveUpAfter = 2 * time.Minute
	// maxPause bounds the growing pause between failed rings.
	maxPause = 5 * time.Second
	// maxRing bounds one ring, with its attempts and the search for credentials.
	maxRing = 2 * time.Minute
	// reportEvery is the time between two lines in Kong's log about one relay.
	reportEvery = time.Minute
	// maxReports bounds the memory of what Kong's log has been told.
	maxReports = 100
)

// target is what is rung. Ring returns nil once all ids are noted.
type target interface {
	Notify(ctx context.Context, ids []string) error
	Close()
}

// newTarget checks the settings. It contacts nothing.
func newTarget(s settings) (target, error) {
	d := trigger.Delivery{Timeout: s.timeout, CA: s.caCert, Insecure: !s.tlsVerify}
	if s.lambdaFunction != "" {
		return trigger.NewLambda(trigger.LambdaOptions{Function: s.lambdaFunction, Delivery: d})
	}
	return trigger.NewClient(trigger.ClientOptions{URL: s.relayURL, Secret: s.secret, Delivery: d})
}

// senders are the process's senders, one for each target and its settings.
// They outlive the instances: a change of configuration makes new instances,
// and what the old ones announced still goes out.
type senders struct {
	newTarget func(settings) (target, error)
	logger    *slog.Logger // Kong logs it at info: for debugging, not for the operator
	running   sync.WaitGroup

	mu      sync.Mutex // guards the rest, and the state of every sender
	bySet   map[settings]*sender
	reports map[string]*report // by plugin entity, of the configuration that it got last
	closed  bool
}

func newSenders(newTarget func(settings) (target, error), logger *slog.Logger) *senders {
	return &senders{newTarget: newTarget, logger: logger, bySet: map[settings]*sender{}, reports: map[string]*report{}}
}

// report is whether Kong's log has been told of one configuration of one plugin
// entity. The instances that Kong's workers make of it share one.
type report struct {
	config [sha256.Size]byte
	said   atomic.Bool
}

// report returns the report of an entity's configuration. Each change begins
// another, also one back to a mistake that was made before.
func (a *senders) report(entity string, config [sha256.Size]byte) *report {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.reports[entity]
	if r == nil || r.config != config {
		if len(a.reports) >= maxReports {
			clear(a.reports)
		}
		r = &report{config: config}
		a.reports[entity] = r
	}
	return r
}

// ring notes id for the target, or that it should look now if id is empty, and
// returns at once. What it returns is a line for Kong's log, mostly none.
func (a *senders) ring(set settings, id string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return ""
	}
	s := a.bySet[set]
	if s == nil {
		t, err := a.newTarget(set)
		if err != nil {
			return "" // reported with the configuration
		}
		ctx, cancel := context.WithCancel(context.Background())
		s = &sender{all: a, set: set, target: t, cancel: cancel, wake: make(chan struct{}, 1)}
		a.bySet[set] = s
		a.running.Go(func() { s.run(ctx) })
	}
	return s.add(id)
}

// close rings for what is still waiting, as far as ctx lets it, and ends all senders.
func (a *senders) close(ctx context.Context) {
	a.mu.Lock()
	a.closed = true
	var last sync.WaitGroup
	for _, s := range a.bySet {
		// What is on its way as well: that attempt may be waiting for its next
		// try. Noting an id twice does no harm.
		ids := append(append([]string{}, s.flight...), s.queue...)
		look := s.look || s.flying && len(s.flight) == 0
		last.Go(func() {
			if len(ids) > 0 {
				_ = s.deliver(ctx, ids)
			}
			if look {
				_ = s.deliver(ctx, nil)
			}
		})
	}
	a.mu.Unlock()
	last.Wait()
	a.mu.Lock()
	for _, s := range a.bySet {
		s.cancel()
	}
	a.mu.Unlock()
	a.running.Wait()
}

// sender rings one target: at once for the first id, then at most once in an
// interval for all that came meanwhile, and always a last time. What it holds
// is bounded by the settings' queueSize and one trigger.
//
// A look is a ring of its own, without ids: the relay stops looking when the ids
// of a ring have shown up. It comes after the ids, which tell more, but after
// one ring of them, so that many ids cannot put it off for ever.
type sender struct {
	all    *senders
	set    settings
	target target
	cancel context.CancelFunc
	wake   chan struct{} // holds one: there may be something to send

	// Guarded by all.mu.
	queue    []string  // announced, not sent
	flight   []string  // being sent
	flying   bool      // a ring is under way, maybe without ids
	look     bool      // something happened that the queue does not tell
	lookNext bool      // ids have gone out since
	added    time.Time // of the last event

	failures   int   // since the last line in Kong's log
	trouble    error // why the last ring failed, or nil
	reportedAt time.Time
}

// add is called with all.mu held.
func (s *sender) add(id string) string {
	s.added = time.Now()
	if id == "" || len(s.queue) >= s.set.queueSize {
		s.look = true
	} else {
		s.queue = append(s.queue, id)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	if s.trouble == nil || (!s.reportedAt.IsZero() && s.added.Sub(s.reportedAt) < reportEvery) {
		return ""
	}
	text := fmt.Sprintf("%s cannot ring the relay (failed %d times): %v; it will find the entries on its schedule", name, s.failures, s.trouble)
	s.failures, s.reportedAt = 0, s.added
	return text
}

func (s *sender) run(ctx context.Context) {
	defer s.target.Close()
	defer s.cancel()
	idle := time.NewTimer(idleAfter)
	defer idle.Stop()
	var pause time.Duration
	for {
		ids, ok := s.take()
		if !ok {
			idle.Reset(idleAfter)
			select {
			case <-s.wake:
			case <-idle.C:
				if s.retire() {
					return
				}
			case <-ctx.Done():
				return
			}
			continue
		}
		start := time.Now()
		err := s.deliver(ctx, ids)
		s.landed(ids, err)
		if err == nil {
			pause = s.set.minInterval
		} else {
			pause = min(max(2*pause, s.set.minInterval, 100*time.Millisecond), max(maxPause, s.set.minInterval))
		}
		select {
		case <-time.After(time.Until(start.Add(pause))):
		case <-ctx.Done():
			return
		}
	}
}

// take moves what one trigger can carry out of the queue. It reports false if
// there is nothing to send.
func (s *sender) take() ([]string, bool) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if len(s.queue) == 0 && !s.look {
		return nil, false
	}
	s.flying = true
	if s.look && (s.lookNext || len(s.queue) == 0) {
		s.look, s.lookNext = false, false
		return nil, true
	}
	s.lookNext = s.look
	n := trigger.Fit(s.queue)
	s.flight = s.queue[:n:n]
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil // so that what has been sent takes no memory
	}
	return s.flight, true
}

// landed keeps what was not noted for the next ring, if one can help.
func (s *sender) landed(ids []string, err error) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.flight, s.flying, s.trouble = nil, false, err
	if err == nil {
		return
	}
	s.failures++
	if trigger.Final(err) {
		return
	}
	if time.Since(s.added) > giveUpAfter {
		s.queue, s.look, s.lookNext = nil, false, false
		return
	}
	queue := append(append([]string{}, ids...), s.queue...)
	s.queue = queue[:min(len(queue), s.set.queueSize)]
	if len(ids) == 0 || len(s.queue) < len(queue) {
		s.look = true // once more, or for the ids that have no room
	}
}

// retire takes an idle sender away. It reports false if an event came meanwhile.
func (s *sender) retire() bool {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if len(s.queue) > 0 || s.look {
		return false
	}
	delete(s.all.bySet, s.set)
	return true
}

var errPanic = errors.New("the sender failed; its process log says why")

// deliver rings once. The process serves every worker of Kong: a bug here may
// cost a ring, not the process.
func (s *sender) deliver(ctx context.Context, ids []string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.all.logger.Error("recovered in a sender", "panic", v)
			err = errPanic
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, maxRing)
	defer cancel()
	return s.target.Notify(ctx, ids)
}
