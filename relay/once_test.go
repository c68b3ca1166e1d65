package main

import (
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

func TestOnceDeliversEverything(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, tc := range []struct {
		name string
		kong kongtest.Options
	}{
		{"oldest first", kongtest.Options{}},
		{"newest first", kongtest.Options{Order: kongtest.NewestFirst}},
		{"no order", kongtest.Options{Order: kongtest.Unordered}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.kong.SkipReads = true
			w := newWorld(t, tc.kong, cloudtrailtest.Options{})
			w.kong.AddSeq(auditlog.Generate(20_000, 1, auditlog.Mix{From: now.Add(-29 * 24 * time.Hour), To: now, LargeEvery: 500}))
			s := w.once("--full")
			t.Logf("%+v", s)
			w.expectAll(0)
			c := w.trail.Counts()
			// That calls go out under the quota is shown to the millisecond in
			// cloudtrail's TestPutKeepsTheRate. Here a busy machine may have some of them
			// arrive closer together; without a rate every third one would be refused.
			if c.Failed > 0 || c.Refused != c.Throttled || c.Throttled > c.Calls/20 {
				t.Errorf("the service had to refuse: %+v", c)
			}
			if s.Read != 20_000 || s.Delivered != 20_000 || !s.Complete {
				t.Errorf("summary is %+v", s)
			}
			if again := w.once("--full"); again.Delivered != 0 || again.New != 0 {
				t.Errorf("second run: %+v", again)
			}
			w.expectAll(0)
		})
	}
}
