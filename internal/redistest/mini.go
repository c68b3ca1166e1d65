package redistest

import (
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// StartMini starts a miniredis, even where there is a redis-server, and stops it
// with the test. By itself its clock stands still; here it goes on, so that
// leases run out.
func StartMini(tb testing.TB) *Server {
	tb.Helper()
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.Close)
	var clock sync.WaitGroup
	clock.Go(func() {
		const step = 10 * time.Millisecond
		tick := time.NewTicker(step)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-tb.Context().Done():
				return
			case now := <-tick.C:
				// After a pause it is slow rather than that something expires before its time.
				m.FastForward(min(now.Sub(last), 2*step))
				last = now
			}
		}
	})
	tb.Cleanup(clock.Wait)
	return &Server{Addr: m.Addr(), tb: tb, mini: m}
}

// Forward puts the clock of a miniredis forward, so that a test sees what expires.
func (s *Server) Forward(d time.Duration) { s.mini.FastForward(d) }
