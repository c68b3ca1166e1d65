package main

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// newLogsWorld is a world whose destination is CloudWatch Logs.
func newLogsWorld(tb testing.TB, kong kongtest.Options, logs cloudwatchtest.Options) (*world, *cloudwatchtest.Server) {
	tb.Helper()
	w := newWorld(tb, kong, cloudtrailtest.Options{})
	return w, w.deliverToLogs(logs)
}

// deliverToLogs makes CloudWatch Logs the destination of a world.
func (w *world) deliverToLogs(o cloudwatchtest.Options) *cloudwatchtest.Server {
	s := cloudwatchtest.New(o)
	server := httptest.NewServer(s)
	w.tb.Cleanup(server.Close)
	w.instead("CHANNEL_ARN=", "RELAY_LOG_GROUP="+cloudwatchtest.Group, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS="+server.URL)
	return s
}

// Entries that were put again because an answer was lost are counted.
func TestLostAnswersAreCounted(t *testing.T) {
	t.Parallel()
	faults := cloudwatchtest.Faults{LoseAnswer: 0.5, Seed: 3}
	lake := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{Faults: faults})
	logs, stream := newLogsWorld(t, kongtest.Options{SkipReads: true}, cloudwatchtest.Options{Faults: faults})
	for _, c := range []struct {
		*world
		repeats func() int
	}{
		{lake, func() int { return lake.trail.Counts().Repeats }},
		{logs, func() int { return stream.Counts().Repeats }},
	} {
		c.kong.Add(rows("l", 3000, func(i int) time.Time { return time.Now().Add(-time.Duration(i) * time.Hour / 5) })...)
		if s := c.once(); s.Repeated == 0 || s.Repeated != c.repeats() {
			t.Errorf("%d repeated, %d by the destination: %+v", s.Repeated, c.repeats(), s)
		}
	}
}
