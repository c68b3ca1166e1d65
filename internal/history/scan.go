package history

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/kong-cloudtrail/relay/internal/walk"
)

// parts is the number of parts of a log that are read at the same time: as many as the client
// keeps connections, since most of the time is spent waiting for Kong.
const parts int64 = 4

// errDisorder ends a scan in parts, because Kong does not keep the order that it needs.
var errDisorder = errors.New("kong does not keep order")

// scan reads a log, in parts at the same time if Kong can filter by time. f is called by one
// goroutine at a time, and sees some rows twice. since and until (excluded) are Unix seconds;
// an until of 0 is the end of the log.
func scan(ctx context.Context, log *walk.Reader, since, until int64, f func(walk.Step) error) error {
	first := log.Walk()
	var mu sync.Mutex
	inParts := false
	step := func(page walk.Step) error {
		mu.Lock()
		defer mu.Unlock()
		if inParts && page.Restart {
			return errDisorder
		}
		return f(page)
	}
	group, inner := errgroup.WithContext(ctx)
	bounds := walk.Bounds{Floor: since, RestartFloor: since, Since: since, Until: until}
	group.Go(func() error {
		return first.Run(inner, bounds, func(page walk.Step) error {
			if err := step(page); err != nil || inParts || page.Through == 0 || page.Offset == "" {
				return err
			}
			// Cut what follows into parts of at least about a page. This walk reads the first one.
			end := until
			if until == 0 || until > page.Now {
				end = page.Now
			}
			n := min(parts, (end-page.Through)/max(1, span(page)))
			if n < 2 {
				return nil
			}
			at := func(i int64) int64 { return page.Through + (end-page.Through)*i/n }
			mu.Lock()
			inParts = true
			mu.Unlock()
			first.EndAt(at(1))
			for i := int64(1); i < n; i++ {
				from, to := at(i), at(i+1)
				if i == n-1 {
					to = until
				}
				group.Go(func() error {
					w := log.Walk()
					w.ReadIn(walk.OldestFirst)
					return w.Run(inner, walk.Bounds{Floor: from, RestartFloor: from, Since: from, Until: to}, step)
				})
			}
			return nil
		})
	})
	if err := group.Wait(); !errors.Is(err, errDisorder) {
		return err
	}
	if err := f(walk.Step{Restart: true}); err != nil {
		return err
	}
	return log.Scan(ctx, since, until, f)
}

// span returns how many seconds lie between the first row of a page and its last.
func span(page walk.Step) int64 {
	for i := range page.Entries {
		if e := &page.Entries[i]; !e.TimestampGuessed {
			return page.Through - e.Timestamp
		}
	}
	return 0
}
