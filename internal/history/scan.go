package history

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/kong-cloudtrail/relay/internal/walk"
)

// parts is into how many parts a log is cut that are read at once: as many as the client
// keeps connections, as most of the time goes by waiting for Kong.
const parts = 4

var (
	errPeek     = errors.New("one page is enough")       // ends a scan after its first page
	errDisorder = errors.New("kong does not keep order") // ends a scan of parts
)

// scan reads a log, in parts at once if Kong can filter by time. f is called by one
// goroutine at a time, and sees some rows twice. until is 0 for the end of the log.
func scan(ctx context.Context, log *walk.Reader, since, until int64, f func(walk.Step) error) error {
	first := since
	var now int64
	err := log.Scan(ctx, since, until, func(page walk.Step) error {
		if page.Order != walk.OldestFirst || page.Restart {
			return errPeek
		}
		if now = page.Now; len(page.Entries) > 0 {
			first = page.Entries[len(page.Entries)-1].Timestamp
		}
		if err := f(page); err != nil {
			return err
		}
		return errPeek
	})
	switch {
	case err == nil && log.Order() == walk.OldestFirst:
		return nil // nothing is there
	case err != nil && !errors.Is(err, errPeek):
		return err
	case log.Order() != walk.OldestFirst:
		return log.Scan(ctx, since, until, f)
	}
	end := until
	if until == 0 || until > now {
		end = now
	}
	var mu sync.Mutex
	outer := ctx
	group, ctx := errgroup.WithContext(ctx)
	for i := range int64(parts) {
		from, to := first+(end-first)*i/parts, first+(end-first)*(i+1)/parts
		if i == parts-1 {
			to = until
		}
		if from == to {
			continue
		}
		group.Go(func() error {
			return log.Scan(ctx, from, to, func(page walk.Step) error {
				if page.Restart || page.Order != walk.OldestFirst {
					return errDisorder
				}
				mu.Lock()
				defer mu.Unlock()
				return f(page)
			})
		})
	}
	if err := group.Wait(); !errors.Is(err, errDisorder) {
		return err
	}
	if err := f(walk.Step{Restart: true}); err != nil {
		return err
	}
	return log.Scan(outer, since, until, f)
}
