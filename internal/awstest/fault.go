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

// Faults are what goes wrong with calls. The zero value is a service without faults. Probabilities
// are from 0 to 1, each drawn by itself.
type Faults struct {
	// Seed makes two servers draw the same for their nth call.
	Seed uint64
	// Delay passes between reading a request and handling it. A client that gives up
	// meanwhile does not take its request back: it is handled then.
	Delay time.Duration
	// Down drops every connection, as an outage does.
	Down bool

	Reset      float64            // drops the connection (TCP RST) without handling the request
	LoseAnswer float64            // takes the events, then closes the connection without an answer
	Garbage    float64            // takes the events, then answers 200 with a body that is not JSON
	Calls      map[string]float64 // error code of a call, whatever it is, to its probability
	// IDs refuses chosen events for as long as it stands, id to code. CloudWatch Logs refuses
	// the calls that hold one.
	IDs map[string]string

	// CloudTrail Lake alone. An event that is left out is not taken, and the answer names it
	// neither as successful nor as failed.
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
	script []Faults
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

// Script sets what happens to the next calls that put events, in the order in which they arrive.
// Those calls meet no standing fault but an outage. It is added to what is left of an earlier script.
func (t *Troubles) Script(faults ...Faults) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.script = append(t.script, faults...)
}

// Plan is what goes wrong with one call, and the dice for its events.
type Plan struct {
	Faults
	dice *rand.Rand
}

// plan returns the plan of the next call, which puts events or reads them.
func (t *Troubles) plan(puts bool) Plan {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.faults
	if puts && !f.Down && len(t.script) > 0 {
		f, t.script = t.script[0], t.script[1:]
	}
	t.drawn++
	return Plan{f, rand.New(rand.NewPCG(t.faults.Seed, t.drawn))}
}

// Read returns what befalls the next call that reads: it is refused with a code, or its page is empty.
func (t *Troubles) Read() (code string, empty bool) {
	p := t.plan(false)
	return p.draw(p.Reads), p.hit(p.EmptyPages)
}

// Event returns what befalls one event: it is left out, or refused with a code.
func (p *Plan) Event(id string) (omit bool, code string) {
	switch {
	case p.IDs[id] != "":
		return false, p.IDs[id]
	case p.hit(p.Omit):
		return true, ""
	}
	return false, p.draw(p.Events)
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
	select {
	case <-time.After(d):
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
