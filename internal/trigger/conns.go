package trigger

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// LimitConnections bounds the number of connections that server keeps open. When
// there is one too many, the one that has waited longest for a request is closed:
// clients that connect and say nothing cannot keep the others out, as they could
// if the newest connection had to wait. If all connections are in use, the newest
// is closed.
//
// It must be called before server serves. A ConnState that is set already is
// still called.
func LimitConnections(server *http.Server, limit int) {
	l := &connLimiter{limit: limit, waiting: list.New(), places: map[net.Conn]*list.Element{}}
	next := server.ConnState
	server.ConnState = func(c net.Conn, state http.ConnState) {
		if surplus := l.track(c, state); surplus != nil {
			_ = surplus.Close()
		}
		if next != nil {
			next(c, state)
		}
	}
}

type connLimiter struct {
	limit int

	mu      sync.Mutex
	open    int
	waiting *list.List                 // of net.Conn: those without a request, the oldest first
	places  map[net.Conn]*list.Element // in waiting
}

// track notes c's new state and returns the connection to close, or nil.
func (l *connLimiter) track(c net.Conn, state http.ConnState) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateNew:
		l.open++
		l.places[c] = l.waiting.PushBack(c)
		if l.open > l.limit {
			oldest := l.waiting.Front().Value.(net.Conn)
			l.remove(oldest)
			return oldest
		}
	case http.StateIdle:
		l.places[c] = l.waiting.PushBack(c)
	case http.StateActive:
		l.remove(c)
	case http.StateHijacked, http.StateClosed:
		l.remove(c)
		l.open--
	}
	return nil
}

// remove takes c off the list of connections that wait, if it is there.
func (l *connLimiter) remove(c net.Conn) {
	if place := l.places[c]; place != nil {
		l.waiting.Remove(place)
		delete(l.places, c)
	}
}
