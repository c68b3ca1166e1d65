package main

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

const (
	// idleAfter is how long a sender without work is kept: a configuration that no
	// longer exists leaves no goroutine. go-pdk does not tell an instance that it ends.
	idleAfter = time.Minute
	// giveUpAfter is how long ids are kept after the last event if the relay cannot
	// be triggered. The relay finds their entries on its schedule.
	giveUpAfter = 2 * time.Minute
	// maxPause bounds the growing pause between failed triggers.
	maxPause = 5 * time.Second
	// maxDelivery bounds one trigger, with its attempts and the search for credentials.
	maxDelivery = 2 * time.Minute
	// awaitFor is how long the first event may wait for the answer to its trigger.
	awaitFor = 5 * time.Second
	// comingFor is how long close waits for the ids of events that have ended early.
	comingFor = 10 * time.Millisecond
	// reportEvery is the time between two lines in Kong's log about one outage of a
	// relay, and spellEvery between lines about two outages.
	reportEvery = time.Minute
	spellEvery  = 5 * time.Second
	// maxReports bounds the number of plugin entities whose reports are remembered.
	maxReports = 100
)

// target receives triggers. Notify returns nil once all ids are stored. It is safe
// for concurrent use, and the sender repeats what failed.
type target interface {
	Notify(ctx context.Context, ids []string) error
}

// newTarget checks the settings. It makes no connection.
func newTarget(s settings) (target, error) {
	d := trigger.Delivery{Timeout: s.timeout, CA: s.caCert, Insecure: !s.tlsVerify}
	if s.lambdaFunction != "" {
		return trigger.NewLambda(trigger.LambdaOptions{Function: s.lambdaFunction, Delivery: d})
	}
	return trigger.NewClient(trigger.ClientOptions{URL: s.relayURL, Secret: s.secret, Delivery: d})
}

// senders are the senders of the process, one for each target and its settings.
// They outlive the instances: a change of configuration makes new instances, and
// what the old ones announced is still sent.
type senders struct {
	newTarget func(settings) (target, error)
	logger    *slog.Logger // Kong logs it at info, so it is for debugging
	running   sync.WaitGroup
	closing   chan struct{} // closed by close
	arrived   chan struct{} // closed when closing is and coming is 0

	mu      sync.Mutex // guards the rest, and the state of every sender
	bySet   map[settings]*sender
	reports map[string]*report // by plugin entity, for its last configuration
	coming  int                // events that have ended for Kong, but whose ids have not arrived
	ending  bool               // there must be no more of those
	closed  bool               // add takes no events
}

func newSenders(newTarget func(settings) (target, error), logger *slog.Logger) *senders {
	return &senders{
		newTarget: newTarget, logger: logger, closing: make(chan struct{}), arrived: make(chan struct{}),
		bySet: map[settings]*sender{}, reports: map[string]*report{},
	}
}

// report says whether Kong's log has the problems of one configuration of one plugin
// entity. The instances that Kong's workers make of it share one.
type report struct {
	config [sha256.Size]byte
	done   atomic.Bool
}

// report returns the report of an entity's configuration. Each change makes a new
// one, even a change back to a mistake that was reported before.
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

// notify queues id for the target of these settings, or a poll if id is empty. It
// returns a line for Kong's log, or "".
//
// It returns at once, except for the event that ends a spell of idleness: that one
// waits until its trigger has been answered or awaitFor has passed, so that a
// failure is logged with the first request that it concerns. At most one event
// waits for each target, so a relay that hangs takes one of the 4,096 log events
// that Kong runs at the same time, and never holds up the others.
func (a *senders) notify(set settings, id string) string {
	line, s, outcome := a.add(set, id)
	if outcome == nil {
		return line
	}
	timeout := time.NewTimer(awaitFor)
	defer timeout.Stop()
	select {
	case line = <-outcome:
		return line
	case <-timeout.C:
	case <-a.closing:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.outcome == outcome {
		s.outcome = nil // the next event reports a failure
		return ""
	}
	return <-outcome // it came in the meantime
}

// expect reports whether an event for these settings may end before its id has
// arrived: notify would not let it wait, and would return no line. After true the
// caller calls arrive once it has called notify.
func (a *senders) expect(set settings) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.bySet[set]
	if a.ending || s == nil || s.awaits() || s.lineDue(time.Now()) {
		return false
	}
	a.coming++
	return true
}

func (a *senders) arrive() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.coming--; a.ending && a.coming == 0 {
		close(a.arrived)
	}
}

// takesNone reports whether events are not taken any more.
func (a *senders) takesNone() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}

// add queues id, or a poll if id is empty. If the event ends a spell of idleness it
// returns the channel that receives the line for Kong's log when its trigger has
// been answered. Otherwise it returns the line, or "".
func (a *senders) add(set settings, id string) (line string, s *sender, outcome chan string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return "", nil, nil
	}
	s = a.bySet[set]
	if s == nil {
		t, err := a.newTarget(set)
		if err != nil {
			return "", nil, nil // it is among the problems of the configuration
		}
		ctx, cancel := context.WithCancel(context.Background())
		s = &sender{all: a, set: set, target: t, cancel: cancel, wake: make(chan struct{}, 1), idle: true}
		a.bySet[set] = s
		a.running.Go(func() { s.run(ctx) })
	}
	line, outcome = s.add(id)
	return line, s, outcome
}

// close sends what is still waiting until ctx ends, and ends all senders.
func (a *senders) close(ctx context.Context) {
	a.mu.Lock()
	a.ending = true
	close(a.closing)
	if a.coming == 0 {
		close(a.arrived)
	}
	a.mu.Unlock()
	// Kong does not have to wait for anything before it answers for those events.
	coming := time.NewTimer(comingFor)
	defer coming.Stop()
	select {
	case <-a.arrived:
	case <-coming.C:
	}
	a.mu.Lock()
	a.closed = true
	var last sync.WaitGroup
	for _, s := range a.bySet {
		// The trigger in flight is sent again: it may be waiting for its next attempt,
		// and storing an id twice does no harm.
		ids := append(append([]string{}, s.inFlight...), s.queue...)
		poll := s.poll || s.sending && len(s.inFlight) == 0
		last.Go(func() {
			if len(ids) > 0 {
				_ = s.deliver(ctx, ids)
			}
			if poll {
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
