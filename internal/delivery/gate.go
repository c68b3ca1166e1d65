package delivery

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	firstProbe = 100 * time.Millisecond // wait before the first probe of a gate that has closed
	maxProbe   = time.Second            // longest wait between two probes
)

// gate is a circuit breaker, with the words the other way round: calls pass while it is
// open. A call that fails closes it, unless a later one has been accepted. While it is
// closed one call at a time is made as a probe, with growing waits in between, and the
// first accepted one opens it for all that wait.
//
// Everything that is put in one pass shares a gate. It is safe for concurrent use.
type gate struct {
	turn chan struct{} // holds an element while a call waits to be the probe, or is it; served in order

	mu       sync.Mutex
	closed   time.Time     // when it closed; zero while it is open
	opened   chan struct{} // closed when it opens; nil while it is open
	reopened time.Time     // when it last opened
	wait     time.Duration // before the next probe
	next     time.Time     // when the next probe may be made
	waiting  int           // calls that wait for it to open

	started  int       // calls so far
	latest   int       // the highest number of a call of which something was accepted
	accepted time.Time // when something was last accepted
}

func newGate() *gate { return &gate{turn: make(chan struct{}, 1)} }

// call is one put, as the gate sees it.
type call struct {
	number int // calls are numbered as they begin
	probe  bool
}

// callResult is the result of a call, as the gate sees it.
type callResult uint8

const (
	cancelled   callResult = iota // the call was not made
	answered                      // the destination answered, and accepted none of a few entries
	accepting                     // the destination accepted something
	failed                        // nothing was accepted, which may be due to the entries
	unavailable                   // the call failed, which is not due to its entries
)

// enter waits until a call may be made. leave must be called once it has ended.
func (g *gate) enter(ctx context.Context) (call, error) {
	for {
		if ctx.Err() != nil {
			return call{}, context.Cause(ctx)
		}
		g.mu.Lock()
		opened := g.opened
		if opened == nil {
			defer g.mu.Unlock()
			return g.begin(false), nil
		}
		g.waiting++
		g.mu.Unlock()
		probe, err := g.queue(ctx, opened)
		g.mu.Lock()
		g.waiting--
		if probe {
			defer g.mu.Unlock()
			return g.begin(true), nil
		}
		g.mu.Unlock()
		if err != nil {
			return call{}, err
		}
	}
}

// begin numbers a call. g.mu is held.
func (g *gate) begin(probe bool) call {
	g.started++
	return call{number: g.started, probe: probe}
}

// queue waits for the gate to open or for the turn to probe. A caller that has the
// turn gives it back with leave.
func (g *gate) queue(ctx context.Context, opened <-chan struct{}) (probe bool, err error) {
	select {
	case <-opened:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case g.turn <- struct{}{}:
	}
	g.mu.Lock()
	timer := time.NewTimer(time.Until(g.next))
	g.mu.Unlock()
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, nil
	case <-opened:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	<-g.turn
	return false, err
}

// leave notes the result of a call. A failure closes the gate only if mayClose is set.
//
// alone reports whether the call failed although the destination accepted entries of a
// call that began later: the failure may then be due to the call's own entries. Earlier
// calls prove nothing, since some were in flight when an outage began.
func (g *gate) leave(c call, o callResult, mayClose bool) (alone bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.probe {
		defer func() { <-g.turn }()
	}
	switch o {
	case cancelled:
		return false
	case accepting:
		g.latest, g.accepted = max(g.latest, c.number), time.Now()
		g.open()
		return false
	case answered:
		if c.probe {
			g.later()
		}
		return false
	case failed, unavailable:
	}
	alone = o == failed && g.latest > c.number
	switch {
	case c.probe:
		g.later()
	case g.opened == nil && !alone && mayClose:
		g.close()
	}
	return alone
}

// later puts the next probe off after one that failed. g.mu is held.
func (g *gate) later() {
	if g.opened == nil { // another call has opened it meanwhile
		return
	}
	g.wait = min(2*g.wait, maxProbe)
	g.next = time.Now().Add(probeWait(g.wait))
}

// close closes the gate. One that was open for a moment only goes on with the
// wait that it had. g.mu is held.
func (g *gate) close() {
	now := time.Now()
	if g.reopened.IsZero() || now.Sub(g.reopened) > maxProbe {
		g.wait = firstProbe
	}
	g.closed, g.opened, g.next = now, make(chan struct{}), now.Add(probeWait(g.wait))
}

// open opens the gate. g.mu is held.
func (g *gate) open() {
	if g.opened == nil {
		return
	}
	close(g.opened)
	g.closed, g.opened, g.reopened = time.Time{}, nil, time.Now()
}

// closedFor returns for how long the gate has been closed, 0 if it is open.
func (g *gate) closedFor() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil {
		return 0
	}
	return max(time.Since(g.closed), 1)
}

// crowded reports whether more than a few calls wait for the gate to open.
func (g *gate) crowded() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting > fewBatches
}

// progress returns the number of calls started so far, and the highest number of a call
// of which something was accepted.
func (g *gate) progress() (started, latest int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.started, g.latest
}

// acceptedSince reports whether the destination has accepted anything since a time.
func (g *gate) acceptedSince(t time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.accepted.IsZero() && !g.accepted.Before(t)
}

// probeWait returns a random wait of at most d, so that several relays do not
// probe in step.
func probeWait(d time.Duration) time.Duration {
	return d - rand.N(d/4)
}
