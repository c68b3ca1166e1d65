// Package kongtest is an emulated Admin API of Kong Enterprise with an audit log:
// for tests, benchmarks, the demo and the local stack. It is written from what
// Kong documents and shares no code with the client. It is as strict as Kong,
// and misbehaves on request.
package kongtest

import (
	"context"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// Server is an emulated Admin API. It is an http.Handler, safe for concurrent use.
type Server struct {
	options atomic.Pointer[Options] // with defaults
	turn    atomic.Uint64           // of the nodes
	proxy   *httputil.ReverseProxy  // of a recorder, else nil
	behind  *url.URL                // where it passes requests on to

	mu       sync.Mutex
	requests auditlog.Table
	objects  auditlog.Table
	faults   []Fault // those of Inject that have not happened yet
	random   *rand.Rand
	stats    Stats
	log      []Request
	changed  chan struct{}          // closed at the next change; nil if nobody waits
	late     map[*time.Timer]func() // functions that write rows which are late
	writes   sync.WaitGroup         // late rows being written

	listening []*httptest.Server

	serving sync.RWMutex // held for reading by each request that came over a listener
	world   entities.World
}

// New returns a server without rows. It need not be closed unless it listens or
// writes rows late.
func New(o Options) *Server {
	s := &Server{late: map[*time.Timer]func(){}, random: rand.New(rand.NewPCG(o.Seed, 0))}
	s.options.Store(o.filled())
	return s
}

// Update changes the options for later requests: another release, another token, faults that
// begin or end. A change of Seed has no effect. change must not call the server.
func (s *Server) Update(change func(*Options)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := *s.options.Load()
	change(&o)
	s.options.Store(o.filled())
}

// Add puts rows into the audit log. A row lives for 30 days from its timestamp, or, if that
// is over already, for 30 days from now, as if Kong had just inserted it.
//
// The caller must give each row a request id of its own: Kong would refuse one that it has
// already, and Add does not check that.
func (s *Server) Add(rows ...auditlog.Row) { s.AddSeq(slices.Values(rows)) }

// AddSeq is like Add, for up to millions of rows.
func (s *Server) AddSeq(rows iter.Seq[auditlog.Row]) {
	const batch = 1024 // rows after which readers get their turn
	o := s.options.Load()
	pending := make([]auditlog.Record, 0, 16)
	flush := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests.Add(pending...)
		s.change()
		pending = pending[:0]
	}
	now := o.Now().Unix()
	for row := range rows {
		if o.SigningKey != nil {
			row.Sign(o.SigningKey, o.SignTimestamp)
		}
		pending = append(pending, row.Encode(now, recordTTL))
		if len(pending) == batch {
			flush()
		}
	}
	flush()
}

// Delete removes rows by request id, as Kong's purge does, and returns how many
// there were.
func (s *Server) Delete(ids ...string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, id := range ids {
		n += s.requests.Delete(id)
	}
	return n
}

// Purge removes the rows of both tables whose timestamp is before a time, and returns
// how many requests there were.
func (s *Server) Purge(before time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects.DeleteBefore(before.Unix())
	return s.requests.DeleteBefore(before.Unix())
}

// Len returns the number of rows in the table, including expired ones.
func (s *Server) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.Len()
}

// IDs yields the request ids of the rows that are there, oldest first.
func (s *Server) IDs() iter.Seq[string] { return s.ids(s.requests.Records) }

// EverIDs yields the request ids of all rows that the table has ever had, in the order in which
// they came.
func (s *Server) EverIDs() iter.Seq[string] { return s.ids(s.requests.Ever) }

func (s *Server) ids(of func() []auditlog.Record) iter.Seq[string] {
	return func(yield func(string) bool) {
		s.mu.Lock()
		records := of() // what is done with the ids may change the table
		s.mu.Unlock()
		for _, r := range records {
			if !yield(r.ID) {
				return
			}
		}
	}
}

// Await returns nil once holds returns true. It calls holds whenever a request has been
// answered or rows were added. If ctx ends before, Await returns its error.
func (s *Server) Await(ctx context.Context, holds func() bool) error {
	for {
		s.mu.Lock()
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		if holds() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// change wakes up those who wait in Await. s.mu is held.
func (s *Server) change() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// now returns the time by the clock of a control plane.
func (n *Node) now(o *Options) time.Time { return o.Now().Add(n.Skew) }

// ServeHTTP answers as one of the control planes, each in turn.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	o := s.options.Load()
	n := &o.Nodes[(s.turn.Add(1)-1)%uint64(len(o.Nodes))]
	e := &exchange{
		options: o,
		node:    n,
		w:       rw,
		r:       r,
		Request: Request{
			Time: n.now(o), RequestID: entities.RandomID(rand.IntN),
			Method: r.Method, Path: r.URL.Path, Page: r.URL.Path == auditPath && r.Method == http.MethodGet,
		},
	}
	// A handler that cuts the connection panics, and its request counts all the same.
	defer func() {
		s.count(e.Request)
		if f := o.Answered; f != nil {
			f(e.Request)
		}
		s.record(e)
		if e.cut != nil {
			e.cut.Close() //nolint:errcheck // nothing to tell anyone
		}
	}()
	if e.Page {
		e.Query = r.URL.Query()
		e.Fault = s.nextFault(o, e.Request)
		if !s.begin(e) {
			return
		}
	}
	e.setKong(e.w.Header())
	if !e.authorize() {
		return
	}
	switch {
	case e.Page && !o.AuditOff:
		s.servePage(e, &s.requests)
	case s.proxy != nil && !isAudit(r.URL.Path):
		s.forward(e)
	default:
		s.serveAdmin(e)
	}
}
