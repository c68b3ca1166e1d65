package app

import (
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

const progressEvery = 30 * time.Second

// LogProgress returns a function that logs the progress of a long pass every 30 seconds. It is safe
// for concurrent use.
func LogProgress(log *slog.Logger) func(pipeline.Summary) {
	var (
		mu   sync.Mutex
		last time.Time
	)
	return func(sum pipeline.Summary) {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if now.Sub(last) < progressEvery || sum.Seconds < progressEvery.Seconds() {
			return
		}
		last = now
		log.Info("pass goes on", "kind", string(sum.Kind), "full", sum.Full, "pages", sum.Pages, "read", sum.Read, "new", sum.New,
			"delivered", sum.Delivered, "per_second", strconv.FormatFloat(float64(sum.Read)/sum.Seconds, 'f', 0, 64))
	}
}
