package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/health"
)

// lockedBuffer can be read while it is written to.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// A fault is a line of the log within two seconds, then one every 30 seconds.
func TestFaultIsSaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		s := &server{health: health.New(slog.New(slog.NewTextHandler(&log, nil))), scheduler: announce.New(announce.Options{})}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go repeat(ctx, tickEvery, s.tick)
		s.report(health.Destination, "put", errors.New("no route to host"))
		logged := func(text string) int {
			synctest.Wait()
			return strings.Count(log.String(), text)
		}
		<-time.After(2 * time.Second)
		if logged("dependency is failing") != 1 {
			t.Errorf("not said:\n%s", log.String())
		}
		<-time.After(91 * time.Second)
		if n := logged("dependency is still failing"); n != 3 || logged("level=WARN") != 4 {
			t.Errorf("said again %d times within 93 s:\n%s", n, log.String())
		}
		s.report(health.Destination, "put", nil)
		<-time.After(time.Minute)
		if logged("dependency works again") != 1 || logged("level=WARN") != 4 {
			t.Errorf("the end:\n%s", log.String())
		}
	})
}
