package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/health"
)

// A fault is a line of the log within two seconds, then one every 30 seconds.
func TestFaultIsSaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
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
