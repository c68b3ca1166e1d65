package cloudtrailtest

import (
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"time"
)

// Fault is what goes wrong with one call of PutAuditEvents. The zero value is a
// call that goes well.
type Fault struct {
	// Delay passes between reading the request and handling it. A client that
	// gives up meanwhile does not take its request back: it is handled then.
	Delay time.Duration
	// Reset drops the connection (TCP RST) before the request has been read.
	Reset bool
	// Code refuses the whole call with this error: ThrottlingException,
	// InternalFailure, ServiceUnavailable, AccessDeniedException,
	// ExpiredTokenException, ChannelInsufficientPermission, or any other.
	Code string
	// Events refuses events, id to code: Throttling, InternalFailure, or any other.
	Events map[string]string
	// Omit leaves events out: they are not accepted, and the answer names them
	// neither as successful nor as failed.
	Omit []string
	// LoseAnswer accepts the events, then closes the connection without an answer.
	LoseAnswer bool
	// Garbage accepts the events, then answers 200 with a body that is not JSON.
	Garbage bool
}

// Faults go on until they are changed. Probabilities are from 0 to 1, each
// drawn on its own; two servers with one seed draw the same for their nth call.
type Faults struct {
	Seed uint64
	// Delay and up to Jitter more is the time that each call takes.
	Delay, Jitter time.Duration

	Reset      float64
	LoseAnswer float64
	Garbage    float64
	Omit       float64            // of an event
	Calls      map[string]float64 // error code of a call to its probability
	Events     map[string]float64 // error code of an event to its probability

	// IDs refuses chosen events for as long as it stands, id to code.
	IDs map[string]string
	// Down drops every connection, as an outage does.
	Down bool
}

// SetFaults replaces the standing faults and starts their dice again.
func (s *Server) SetFaults(f Faults) {
	f.Calls, f.Events, f.IDs = maps.Clone(f.Calls), maps.Clone(f.Events), maps.Clone(f.IDs)
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	s.faults, s.drawn = f, 0
}

// SetDown begins or ends an outage: every connection is dropped.
func (s *Server) SetDown(down bool) {
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	s.faults.Down = down
}

// Script sets what happens to the next calls, one fault each, in the order in
// which they arrive, whatever becomes of them. Those calls meet no standing
// fault but an outage. It is added to what is left of an earlier script.
func (s *Server) Script(faults ...Fault) {
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	s.script = append(s.script, faults...)
}

// plan is the fault of one call, and the dice for its events.
type plan struct {
	Fault
	standing Faults
	dice     *rand.Rand // nil if nothing is left to chance
}

func (s *Server) plan() plan {
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
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
	if f.Jitter == 0 && f.Reset == 0 && f.LoseAnswer == 0 && f.Garbage == 0 && f.Omit == 0 && len(f.Calls) == 0 && len(f.Events) == 0 {
		return p
	}
	s.drawn++
	p.dice = rand.New(rand.NewPCG(f.Seed, s.drawn))
	if f.Jitter > 0 {
		p.Delay += time.Duration(p.dice.Int64N(int64(f.Jitter)))
	}
	p.Reset = p.hit(f.Reset)
	p.LoseAnswer = p.hit(f.LoseAnswer)
	p.Garbage = p.hit(f.Garbage)
	p.Code = p.draw(f.Calls)
	return p
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

// event returns what befalls one event: left out, or refused with a code.
func (p *plan) event(id string) (omit bool, code string) {
	switch {
	case slices.Contains(p.Omit, id):
		return true, ""
	case p.Events[id] != "":
		return false, p.Events[id]
	case p.standing.IDs[id] != "":
		return false, p.standing.IDs[id]
	case p.dice == nil:
		return false, ""
	case p.hit(p.standing.Omit):
		return true, ""
	}
	return false, p.draw(p.standing.Events)
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

// reset ends the connection at once, with a TCP reset where HTTP/1 lets it. It
// does not return.
func reset(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // else it closes in the usual way
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}
