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
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// Server is an emulated Admin API. It is an http.Handler, safe for concurrent use.
type Server struct {
	options atomic.Pointer[Options] // with defaults
	turn    atomic.Uint64           // of the nodes
	proxy   *httputil.ReverseProxy  // of a recorder, else nil
	behind  *url.URL                // where it passes requests on to

	mu      sync.Mutex
	given   Options // without defaults, so that changing one changes what follows from it
	store   store
	objects store
	faults  []Fault // injected
	random  *rand.Rand
	stats   Stats
	log     []Request
	changed chan struct{} // closed at the next change; nil if nobody waits
	late    map[*lateRow]struct{}
	writes  sync.WaitGroup // late rows being written

	world     entities.World
	lastID    atomic.Pointer[string] // of a request that was not for the audit log
	other     atomic.Pointer[Server] // see Replace
	listeners listeners
}

// New returns a server without rows. It need not be closed unless it listens or
// writes rows late.
func New(o Options) *Server {
	s := &Server{late: map[*lateRow]struct{}{}, given: o, random: rand.New(rand.NewPCG(o.Seed, 0))}
	s.options.Store(o.filled())
	return s
}

// Update changes the options for requests to come: another release, another
// token, faults that begin or end. Seed has been used, and listeners keep their
// ClientCert. change must not call the server.
func (s *Server) Update(change func(*Options)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.given)
	s.options.Store(s.given.filled())
}

// Add puts rows into the audit log. A row lives for RecordTTL from its
// timestamp, or for its TTL from now if it has one. A row so old that it would
// not be seen at all lives for RecordTTL from now, as if Kong had just inserted it.
//
// Request ids are the caller's duty: Kong would refuse one that is there already,
// Add does not look.
func (s *Server) Add(rows ...Row) { s.AddSeq(slices.Values(rows)) }

// AddSeq is Add for many rows: rows may yield millions.
func (s *Server) AddSeq(rows iter.Seq[Row]) {
	const batch = 1024 // rows between which readers get their turn
	o := s.options.Load()
	pending := make([]Row, 0, 16)
	flush := func() {
		now := s.now(o, nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		first := len(s.store.rows)
		for i := range pending {
			s.store.add(&pending[i], expiry(o, &pending[i], now), o.Omit)
		}
		s.store.index(first)
		s.change()
		pending = pending[:0]
	}
	for row := range rows {
		sign(o, &row)
		pending = append(pending, row)
		if len(pending) == batch {
			flush()
		}
	}
	flush()
}

func expiry(o *Options, row *Row, now time.Time) int64 {
	if row.TTL != nil {
		return now.Unix() + *row.TTL
	}
	keep := int64(o.RecordTTL / time.Second)
	if t := row.RequestTimestamp + keep; t > now.Unix() {
		return t
	}
	return now.Unix() + keep
}

// Delete removes rows by request id, as Kong's purge does, and returns how many
// there were.
func (s *Server) Delete(ids ...string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, id := range ids {
		n += s.store.deleteID(id)
	}
	return n
}

// Purge removes the rows of both tables whose timestamp is before a time, and returns
// how many requests there were.
func (s *Server) Purge(before time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects.deleteBefore(before.Unix())
	return s.store.deleteBefore(before.Unix())
}

// Len returns the number of rows that are there, expired ones included.
func (s *Server) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.live
}

// All yields the rows that are there, oldest first. A field that was left out is
// named in Omit.
func (s *Server) All() iter.Seq[Row] {
	return func(yield func(Row) bool) {
		o := s.options.Load()
		now := s.now(o, nil).Unix()
		for r := range s.records(&s.store, false) {
			head, text := r.parts(nil, now, shown{ttl: !o.NoTTL, time: true})
			b := append(append(head, text...), '}')
			row, err := decodeRow(b)
			if err != nil {
				panic(err) // a test put something into Extra that is not JSON
			}
			if !yield(row) {
				return
			}
		}
	}
}

// IDs yields the request ids of the rows that are there, oldest first.
func (s *Server) IDs() iter.Seq[string] { return s.ids(&s.store, false) }

// EverIDs yields the request ids of all rows that were ever there, as they came.
func (s *Server) EverIDs() iter.Seq[string] { return s.ids(&s.store, true) }

func (s *Server) ids(of *store, ever bool) iter.Seq[string] {
	return func(yield func(string) bool) {
		for r := range s.records(of, ever) {
			if !yield(r.id) {
				return
			}
		}
	}
}

// records yields rows as of when it is called; what is done with them may change the store.
func (s *Server) records(of *store, ever bool) iter.Seq[record] {
	return func(yield func(record) bool) {
		s.mu.Lock()
		rows := make([]record, 0, of.live)
		if ever {
			rows = slices.Clone(of.rows)
		} else {
			for _, n := range of.byTime {
				if r := of.rows[n]; !r.dead {
					rows = append(rows, r)
				}
			}
		}
		s.mu.Unlock()
		for _, r := range rows {
			if !yield(r) {
				return
			}
		}
	}
}

// Await returns once holds does, which it asks whenever a request has been
// answered or rows were added, or with the error of ctx. It is for tests that
// wait for a row or a page.
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

// change wakes those who wait. The caller holds the lock.
func (s *Server) change() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// now is the clock of a control plane; nil is one without skew.
func (s *Server) now(o *Options, n *Node) time.Time {
	t := o.Now()
	if n != nil {
		t = t.Add(n.Skew)
	}
	return t
}

// Replace puts another Kong behind this one's address, as a DNS record that was
// changed does. nil puts this one back.
func (s *Server) Replace(other *Server) { s.other.Store(other) }

// ServeHTTP answers as one of the control planes, each in turn.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if other := s.other.Load(); other != nil {
		other.ServeHTTP(w, r)
		return
	}
	o := s.options.Load()
	s.serve(w, r, o, &o.Nodes[(s.turn.Add(1)-1)%uint64(len(o.Nodes))])
}

// Node returns the Admin API of one control plane, counted from 0.
func (s *Server) Node(i int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := s.options.Load()
		s.serve(w, r, o, &o.Nodes[i%len(o.Nodes)])
	})
}

func (s *Server) serve(rw http.ResponseWriter, r *http.Request, o *Options, n *Node) {
	if n.Differs != nil {
		changed := *o
		n.Differs(&changed)
		o = &changed
	}
	e := &exchange{
		options: o,
		node:    n,
		w:       &countingWriter{ResponseWriter: rw},
		r:       r,
		Request: Request{
			Time: s.now(o, n), Node: n.Hostname, RequestID: newRequestID(),
			Method: r.Method, Path: r.URL.Path, Page: r.URL.Path == auditPath && r.Method == http.MethodGet,
		},
	}
	// A handler that cuts the connection panics, and has been served all the same.
	defer func() {
		s.finish(e)
		if e.cut != nil {
			e.cut.Close() //nolint:errcheck // nothing to tell anyone
		}
	}()
	switch last := s.lastID.Load(); {
	case !isAudit(r.URL.Path):
		s.lastID.Store(&e.RequestID)
	case o.CachedHeaders && last != nil:
		e.cachedID = *last
	}
	if e.Page {
		e.Query = r.URL.Query()
		e.Fault = s.nextFault(o, e.Request)
		if !s.begin(e) {
			return
		}
	}
	e.kongHeader()
	if !e.authorize() {
		return
	}
	switch {
	case e.Page:
		s.servePage(e, &s.store)
	case s.proxy != nil && !isAudit(r.URL.Path):
		s.forward(e)
	default:
		s.serveAdmin(e)
	}
}
