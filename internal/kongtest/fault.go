package kongtest

import (
	"cmp"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault is what goes wrong with a page of /audit/requests. The zero value is no fault. Fields
// combine, with these exceptions: Reset combines with Wait only, Truncate and Pause need a page
// or Content, and Reorder needs a page.
type Fault struct {
	// Wait is how long the server waits before it does anything else. With Status 500 it
	// emulates a database that is down, for which Kong waits up to 30 s.
	Wait time.Duration
	// Status is sent instead of the page. 401, 403, 404 and 500 come from Kong; any other
	// comes from something before it, without Kong's headers and without a row in the
	// audit log.
	Status int
	// RetryAfter is sent along with Status, in whole seconds, unless it is zero.
	RetryAfter time.Duration
	// Content replaces the body of the page or of Status. It is sent as HTML if it begins
	// with <, else as JSON, and without Status with a 200.
	Content string
	// Reset resets the connection instead of sending an answer.
	Reset bool
	// Truncate cuts the connection in the middle of the body.
	Truncate bool
	// Pause is how long the server waits after each tenth of the body.
	Pause time.Duration
	// Reorder shuffles the page's rows.
	Reorder bool
}

// HTML returns the fault of something before Kong that answers with a page of its own.
func HTML() Fault {
	return Fault{Content: "<!DOCTYPE html>\n<html><body><h1>Please log in</h1></body></html>\n"}
}

// NoData returns the fault of an answer that is JSON but not a page.
func NoData() Fault { return Fault{Content: `{"next":null}`} }

// Chance is a fault that happens to a share of the pages, at random. For a fault of every n-th
// page, use [Options].OnPage.
type Chance struct {
	P     float64 // its probability, 0 to 1
	Fault Fault
}

// Inject makes these faults happen to the next pages, one to each. Nothing happens to a page
// whose Fault is the zero value.
func (s *Server) Inject(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

func (s *Server) nextFault(o *Options, r Request) Fault {
	if o.OnPage != nil {
		if f := o.OnPage(r); f != (Fault{}) {
			return f
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) > 0 {
		f := s.faults[0]
		s.faults = s.faults[1:]
		return f
	}
	for _, c := range o.Chances {
		if s.random.Float64() < c.P {
			return c.Fault
		}
	}
	return Fault{}
}

// begin does what a fault does before the page is read, and reports whether the page is
// still to be sent.
func (s *Server) begin(e *exchange) bool {
	f := &e.Fault
	if !wait(e.r, e.options.Latency+f.Wait) {
		e.silent = true
		return false
	}
	switch {
	case f.Reset:
		e.silent = true
		e.reset()
		return false
	case f.Status == 0 && f.Content == "":
		return true
	}
	status, text := f.Status, "An unexpected error occurred"
	switch status {
	case http.StatusUnauthorized:
		text = "Invalid RBAC credentials. Token or User credentials required"
	case http.StatusForbidden:
		text = "audit-relay, you do not have permissions to read this resource"
	case http.StatusNotFound:
		text = "Not found"
	case http.StatusInternalServerError:
		e.silent = true // the row cannot be written either
	default:
		e.silent = true
		text = http.StatusText(status)
	}
	h := e.w.Header()
	if !e.silent || status == http.StatusInternalServerError {
		e.setKong(e.w.Header())
	} else {
		h["Server"] = []string{"proxy"}
	}
	if f.RetryAfter != 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(f.RetryAfter/time.Second), 10))
	}
	if f.Content == "" {
		e.message(status, text)
		return false
	}
	if strings.HasPrefix(f.Content, "<") {
		h.Set("Content-Type", "text/html; charset=utf-8")
	}
	e.send(cmp.Or(status, http.StatusOK), []byte(f.Content))
	return false
}

// send answers with a body, as JSON unless the content type is set. Truncate and Pause of the
// fault apply.
func (e *exchange) send(status int, body []byte) {
	e.Status = status
	if status == http.StatusNoContent {
		e.w.WriteHeader(status)
		return
	}
	h := e.w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json; charset=utf-8")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	e.w.WriteHeader(status)
	piece := max(len(body), 1)
	if e.Fault.Pause > 0 {
		piece = len(body)/10 + 1
	}
	if e.Fault.Truncate {
		body = body[:len(body)/2]
	}
	for part := range slices.Chunk(body, piece) {
		n, err := e.w.Write(part)
		e.Bytes += int64(n)
		if err != nil {
			return // the client has gone
		}
		if e.Fault.Pause > 0 {
			http.NewResponseController(e.w).Flush() //nolint:errcheck // the next write fails as well
			if !wait(e.r, e.Fault.Pause) {
				return
			}
		}
	}
	if e.Fault.Truncate {
		http.NewResponseController(e.w).Flush() //nolint:errcheck // the connection is cut in any case
		panic(http.ErrAbortHandler)
	}
}

// wait waits for d, and reports whether the client is still there.
func wait(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-r.Context().Done():
		return false
	}
}

// reset takes over the connection and has it closed so that the client sees a reset.
func (e *exchange) reset() {
	conn, _, err := http.NewResponseController(e.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: the stream is reset
	}
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(*net.TCPConn); ok {
		t.SetLinger(0) //nolint:errcheck // closing is what matters
	}
	e.cut = conn
}
