package trigger

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// logLimiter counts frequent events and says when to log them. The zero value
// is ready to use.
type logLimiter struct {
	mu   sync.Mutex
	last time.Time
	n    int
}

// count counts an event. It returns the number of events since the last line if
// another line is due, and 0 otherwise. The first event is due at once.
func (l *logLimiter) count(now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	if !l.last.IsZero() && now.Sub(l.last) < logEvery {
		return 0
	}
	n := l.n
	l.n, l.last = 0, now
	return n
}

// bodyLimiter bounds the number of bodies that are read at the same time, and
// with it the memory that strangers can take: a body must be read before its
// signature can be checked. When there are too many, the one that has taken
// longest is cut off: a trigger arrives in an instant, so that one is slow by
// accident or on purpose. Making the newest wait instead would let a few slow
// senders keep out all others. The zero value is ready to use.
type bodyLimiter struct {
	mu   sync.Mutex
	open []*http.ResponseController // the oldest first
}

const maxBodies = 256

// begin gives the body of a request readFor to arrive, or less if others come. The caller calls
// done once it has read it.
func (b *bodyLimiter) begin(w http.ResponseWriter) (done func()) {
	c := http.NewResponseController(w)
	b.mu.Lock()
	defer b.mu.Unlock()
	// Not every ResponseWriter has deadlines; a server's has.
	_ = c.SetReadDeadline(time.Now().Add(readFor))
	if len(b.open) >= maxBodies {
		_ = b.open[0].SetReadDeadline(time.Unix(1, 0))
		b.open = slices.Delete(b.open, 0, 1)
	}
	b.open = append(b.open, c)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.open = without(b.open, c)
	}
}

// LimitConnections bounds the number of connections that server keeps open. When
// there is one too many, the one that has waited longest for a request is closed:
// clients that connect and say nothing cannot keep the others out, as they could
// if the newest connection had to wait. If all connections are in use, the newest
// is closed.
//
// It sets the ConnState of server, before server serves.
func LimitConnections(server *http.Server, limit int) {
	l := &connLimiter{limit: limit}
	server.ConnState = func(c net.Conn, state http.ConnState) {
		if surplus := l.track(c, state); surplus != nil {
			_ = surplus.Close()
		}
	}
}

type connLimiter struct {
	limit int

	mu      sync.Mutex
	open    int
	waiting []net.Conn // those without a request, the oldest first
}

// track notes c's new state and returns the connection to close, or nil.
func (l *connLimiter) track(c net.Conn, state http.ConnState) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateNew:
		l.open++
		l.waiting = append(l.waiting, c)
		if l.open > l.limit {
			oldest := l.waiting[0]
			l.waiting = without(l.waiting, oldest)
			return oldest
		}
	case http.StateIdle:
		l.waiting = append(l.waiting, c)
	case http.StateActive:
		l.waiting = without(l.waiting, c)
	case http.StateHijacked, http.StateClosed:
		l.waiting = without(l.waiting, c)
		l.open--
	}
	return nil
}

// without returns a list without x, if x is there.
func without[T comparable](list []T, x T) []T {
	if i := slices.Index(list, x); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}

// recent is a map that forgets. A key stays for at least keep, unless there are more than
// most of them: then the oldest go first. It is safe for concurrent use.
type recent[V any] struct {
	most int
	keep time.Duration

	mu        sync.Mutex
	turned    time.Time // when cur was begun
	cur, prev map[string]V
}

// loadOrStore returns the value of a key if there is one. Otherwise it stores v, and
// returns it.
func (r *recent[V]) loadOrStore(now time.Time, key string, v V) (value V, loaded bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur == nil || len(r.cur) >= r.most || now.Sub(r.turned) >= r.keep {
		r.prev, r.cur, r.turned = r.cur, map[string]V{}, now
	}
	value, loaded = r.cur[key]
	if !loaded {
		if value, loaded = r.prev[key]; !loaded {
			value = v
		}
		r.cur[key] = value
	}
	return value, loaded
}

func (r *recent[V]) delete(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.cur, key)
	delete(r.prev, key)
}
