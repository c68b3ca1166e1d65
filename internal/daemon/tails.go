package daemon

import (
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// tails sums up tails that follow each other closely in one line of the log: on a busy
// gateway there are many a second.
type tails struct {
	mu     sync.Mutex
	logged time.Time // when the last line was written
	count  int       // of tails that are in no line yet
	sum    pipeline.Summary
}

func (t *tails) add(s pipeline.Summary) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	t.sum.Add(s)
}

// take returns the sum of the tails that were counted, once a line is due. A tail that none
// came before for some time is due at once.
func (t *tails) take(now time.Time) (count int, sum pipeline.Summary) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == 0 || now.Sub(t.logged) < tailsEvery {
		return 0, sum
	}
	count, sum = t.count, t.sum
	t.logged, t.count, t.sum = now, 0, pipeline.Summary{}
	return count, sum
}

// logTails writes a line about the tails since the last one.
func (s *server) logTails(now time.Time) {
	if count, sum := s.tails.take(now); count > 0 {
		s.log.Info("passes complete", "kind", string(audit.Tail), "count", count, "pages", sum.Pages, "read", sum.Read, "new", sum.New,
			"delivered", sum.Delivered, "dead", sum.Dead, "deferred", sum.Deferred)
	}
}
