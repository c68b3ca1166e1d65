// Package awstest is what the emulated AWS services share: faults on request, the events
// that a service has taken, the credentials that it knows, and its errors.
package awstest

import (
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Fault is what goes wrong with one call that puts events. The zero value is a call that
// goes well.
type Fault struct {
	// Delay passes between reading the request and handling it. A client that gives up
	// meanwhile does not take its request back: it is handled then.
	Delay time.Duration
	// Reset drops the connection (TCP RST) without handling the request.
	Reset bool
	// Code refuses the whole call with this error, whatever it is.
	Code string
	// LoseAnswer takes the events, then closes the connection without an answer.
	LoseAnswer bool
	// Garbage takes the events, then answers 200 with a body that is not JSON.
	Garbage bool

	// Events refuses events, id to code (CloudTrail Lake).
	Events map[string]string
	// Omit leaves events out: they are not taken, and the answer names them neither as
	// successful nor as failed (CloudTrail Lake).
	Omit []string
}

// Faults go on until they are changed. Probabilities are from 0 to 1, each drawn by itself;
// two servers with one seed draw the same for their nth call.
type Faults struct {
	Seed uint64
	// Delay and up to Jitter more is the time that each call takes.
	Delay, Jitter time.Duration

	Reset      float64
	LoseAnswer float64
	Calls      map[string]float64 // error code of a call to its probability
	// IDs refuses chosen events for as long as it stands, id to code. CloudWatch Logs refuses
	// the calls that hold one.
	IDs map[string]string
	// Down drops every connection, as an outage does.
	Down bool

	// CloudTrail Lake alone.
	Omit   float64            // of an event
	Events map[string]float64 // error code of an event to its probability

	// CloudWatch Logs alone.
	Reads      map[string]float64 // error code of FilterLogEvents to its probability
	EmptyPages float64            // of a page of FilterLogEvents that is not the last
	Clock      time.Duration      // how far the service's clock is ahead
}

// Troubles are the faults of a server. The zero value has none. They are safe for
// concurrent use.
type Troubles struct {
	mu     sync.Mutex
	faults Faults
	script []Fault
	drawn  uint64 // calls for which dice were drawn
}

// SetFaults replaces the standing faults and starts their dice again.
func (t *Troubles) SetFaults(f Faults) {
	f.Calls, f.Events, f.Reads, f.IDs = maps.Clone(f.Calls), maps.Clone(f.Events), maps.Clone(f.Reads), maps.Clone(f.IDs)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults, t.drawn = f, 0
}

// SetDown begins or ends an outage: every connection is dropped.
func (t *Troubles) SetDown(down bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults.Down = down
}

// Script sets what happens to the next calls that put events, one fault each, in the order
// in which they arrive. Those calls meet no standing fault but an outage. It is added to
// what is left of an earlier script.
func (t *Troubles) Script(faults ...Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.script = append(t.script, faults...)
}

// Plan is the fault of one call, and the dice for its events.
type Plan struct {
	Fault
	Standing Faults
	Empty    bool       // the page of a reader has no events
	dice     *rand.Rand // nil if nothing is left to chance
}

// Plan returns the fault of the next call that puts events.
func (t *Troubles) Plan() Plan {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.faults
	switch {
	case f.Down:
		return Plan{Fault: Fault{Reset: true}}
	case len(t.script) > 0:
		p := Plan{Fault: t.script[0]}
		t.script = t.script[1:]
		return p
	}
	p := Plan{Fault: Fault{Delay: f.Delay}, Standing: f}
	if f.Jitter == 0 && f.Reset+f.LoseAnswer+f.Omit == 0 && len(f.Calls)+len(f.Events) == 0 {
		return p
	}
	p.dice = t.roll()
	if f.Jitter > 0 {
		p.Delay += time.Duration(p.dice.Int64N(int64(f.Jitter)))
	}
	p.Reset, p.LoseAnswer = p.hit(f.Reset), p.hit(f.LoseAnswer)
	p.Code = p.draw(f.Calls)
	return p
}

// ReadPlan returns the fault of the next call that reads.
func (t *Troubles) ReadPlan() Plan {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := Plan{Standing: t.faults, dice: t.roll()}
	p.Code, p.Empty = p.draw(t.faults.Reads), p.hit(t.faults.EmptyPages)
	return p
}

// roll returns the dice of the next call. The caller holds the lock.
func (t *Troubles) roll() *rand.Rand {
	t.drawn++
	return rand.New(rand.NewPCG(t.faults.Seed, t.drawn))
}

// Event returns what befalls one event: it is left out, or refused with a code.
func (p *Plan) Event(id string) (omit bool, code string) {
	switch {
	case slices.Contains(p.Omit, id):
		return true, ""
	case p.Events[id] != "":
		return false, p.Events[id]
	case p.Standing.IDs[id] != "":
		return false, p.Standing.IDs[id]
	case p.dice == nil:
		return false, ""
	case p.hit(p.Standing.Omit):
		return true, ""
	}
	return false, p.draw(p.Standing.Events)
}

func (p *Plan) hit(probability float64) bool { return p.dice.Float64() < probability }

// draw returns the first code that the dice choose, in the order of the codes, or "".
func (p *Plan) draw(codes map[string]float64) string {
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		if p.hit(codes[code]) {
			return code
		}
	}
	return ""
}

// wait lets a delay pass, or the client go.
func wait(r *http.Request, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}

// reset ends the connection at once, with a TCP reset where HTTP/1 lets it. It does not
// return.
func reset(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // else it closes in the usual way
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}
