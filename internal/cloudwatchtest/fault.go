package cloudwatchtest

import (
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"time"
)

// Fault is what goes wrong with one call of PutLogEvents. The zero value is a call
// that goes well.
type Fault struct {
	// Delay passes before the request is handled.
	Delay time.Duration
	// Reset drops the connection (TCP RST) without handling the request.
	Reset bool
	// Code refuses the call with this error, whatever it is.
	Code string
	// LoseAnswer takes the events, then closes the connection without an answer.
	LoseAnswer bool
	// Garbage takes the events, then answers 200 with a body that is not JSON.
	Garbage bool
}

// Faults go on until they are changed. Probabilities are from 0 to 1, each drawn on
// its own; two servers with one seed draw the same for their nth call.
type Faults struct {
	Seed uint64
	// Delay and up to Jitter more is the time that each call takes.
	Delay, Jitter time.Duration

	Reset      float64
	LoseAnswer float64
	Garbage    float64
	Calls      map[string]float64 // error code of a call to its probability
	Reads      map[string]float64 // the same for FilterLogEvents
	EmptyPages float64            // of a page of FilterLogEvents that is not the last
	Drop       float64            // of an event that is taken, and lost
	Double     float64            // of an event that is taken, and there twice

	// IDs refuses a call for as long as it holds an event of a UID, UID to code.
	IDs map[string]string
	// Clock is how far the service's clock is ahead.
	Clock time.Duration
	// Down drops every connection, as an outage does.
	Down bool
}

// SetFaults replaces the standing faults and starts their dice again.
func (s *Server) SetFaults(f Faults) {
	f.Calls, f.Reads, f.IDs = maps.Clone(f.Calls), maps.Clone(f.Reads), maps.Clone(f.IDs)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.drawn = f, 0
}

// SetDown begins or ends an outage: every connection is dropped.
func (s *Server) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.Down = down
}

// Script sets what happens to the next calls of PutLogEvents, one fault each, in the
// order in which they arrive. Those calls meet no standing fault but an outage.
func (s *Server) Script(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = append(s.script, faults...)
}

// plan is the fault of one call, and the dice for its events.
type plan struct {
	Fault
	standing Faults
	dice     *rand.Rand // nil if nothing is left to chance
	empty    bool       // the page of a reader has no events
}

func (s *Server) plan() plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.faults
	switch {
	case f.Down:
		return plan{Fault: Fault{Reset: true}}
	case len(s.script) > 0:
		p := plan{Fault: s.script[0]}
		s.script = s.script[1:]
		return p
	}
	p := plan{Fault: Fault{Delay: f.Delay}, standing: f}
	if f.Jitter == 0 && f.Reset+f.LoseAnswer+f.Garbage+f.Drop+f.Double == 0 && len(f.Calls) == 0 {
		return p
	}
	p.dice = s.roll()
	if f.Jitter > 0 {
		p.Delay += time.Duration(p.dice.Int64N(int64(f.Jitter)))
	}
	p.Reset, p.LoseAnswer, p.Garbage = p.hit(f.Reset), p.hit(f.LoseAnswer), p.hit(f.Garbage)
	p.Code = p.draw(f.Calls)
	return p
}

// readPlan is the fault of a call that reads.
func (s *Server) readPlan() plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := plan{standing: s.faults}
	if len(s.faults.Reads) > 0 || s.faults.EmptyPages > 0 {
		p.dice = s.roll()
		p.Code, p.empty = p.draw(s.faults.Reads), p.hit(s.faults.EmptyPages)
	}
	return p
}

// roll returns the dice of the next call. The caller holds the lock.
func (s *Server) roll() *rand.Rand {
	s.drawn++
	return rand.New(rand.NewPCG(s.faults.Seed, s.drawn))
}

func (p *plan) hit(probability float64) bool { return p.dice.Float64() < probability }

// draw returns the first code that the dice choose, in the order of the codes, or "".
func (p *plan) draw(codes map[string]float64) string {
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		if p.hit(codes[code]) {
			return code
		}
	}
	return ""
}

// wait lets the delay pass, or the client go.
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

// reset ends the connection at once, with a TCP reset where HTTP/1 lets it. It does
// not return.
func reset(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // else it closes in the usual way
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}
