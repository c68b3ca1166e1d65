package trigger

import (
	"net"
	"net/http"
	"slices"
	"sync"
)

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
			l.remove(oldest)
			return oldest
		}
	case http.StateIdle:
		l.waiting = append(l.waiting, c)
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
	if i := slices.Index(l.waiting, c); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	}
}
