package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Scanned is a page of a scan.
type Scanned struct {
	// Entries of the page that are within the bounds. They may be kept no longer
	// than the call.
	Entries []audit.Entry
	// Direction is 1 where the log is read oldest first, -1 newest first, and 0
	// without order. An order that Kong turns out not to keep ends in a Restart.
	Direction int
	// Order is the same in words, as in Summary.
	Order string
	// Now is Kong's clock when the scan began, Unix seconds.
	Now int64
	// Restart: the scan begins again in another order, and shows all of its
	// entries once more. Entries is empty.
	Restart bool
}

// Scan reads the log as a pass does and hands it over page by page. It puts
// nothing, records nothing, and needs no lease. since and until (excluded) are
// Unix seconds; 0 leaves a side open. Entries older than Options.StartAt are left
// out. It holds one page in memory, and waits for a pass that this process makes.
//
// A row may be shown twice where Kong's log changes meanwhile. An error of f ends
// the scan and is returned as it is.
func (p *Pipeline) Scan(ctx context.Context, since, until int64, f func(Scanned) error) error {
	p.passing.Lock()
	defer p.passing.Unlock()
	w := &walk{p: p, order: p.order, until: until}
	if err := w.probe(ctx); err != nil {
		return err
	}
	w.floor = max(since, p.opts.StartAt)
	w.base = w.floor
	defer func() { p.order = w.order }()
	return w.run(ctx, func(s step) error {
		page := Scanned{Order: w.order.String(), Now: w.began.Unix(), Restart: s.restart}
		switch w.order {
		case oldestFirst:
			page.Direction = 1
		case newestFirst:
			page.Direction = -1
		}
		page.Entries = s.entries[:0:len(s.entries)]
		for i := range s.entries {
			if s.entries[i].Timestamp >= w.floor { // queries begin a second early
				page.Entries = append(page.Entries, s.entries[i])
			}
		}
		return f(page)
	})
}

// Exclusive calls f while it holds the lease, as a pass does, so that no pass of
// any process works on the same entries. It waits for the lease as long as
// Request.Wait says. The context that f gets ends with audit.ErrLeaseLost when the
// lease does.
func (p *Pipeline) Exclusive(ctx context.Context, wait time.Duration, f func(ctx context.Context) error) error {
	p.passing.Lock()
	defer p.passing.Unlock()
	leased, h, err := acquire(ctx, p.opts.Acquire, p.opts.LeaseTTL, wait)
	if err != nil {
		return fmt.Errorf("getting the lease: %w", err)
	}
	defer h.end()
	err = f(leased)
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
	defer cancel()
	word, releaseErr := h.lease.Release(release)
	if word {
		// Whoever left word asks again by itself. What it noted is in the ledger.
		_, releaseErr = h.lease.Release(release)
	}
	if releaseErr != nil && !errors.Is(releaseErr, audit.ErrLeaseLost) {
		p.log.Warn("lease not released, it will run out by itself", "err", releaseErr)
	}
	return err
}
