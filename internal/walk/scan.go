package walk

import (
	"context"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Scanned is a page of a scan.
type Scanned struct {
	// Entries of the page that are within the bounds, valid until the callback returns.
	Entries []audit.Entry
	Order   Order
	Now     int64 // Kong's clock when the scan began, Unix seconds
	// Restart: the scan begins again in another order, and shows all of its entries
	// once more. Entries is empty.
	Restart bool
}

// Scan reads the log as a pass does and hands it over page by page. since and
// until (excluded) are Unix seconds; 0 leaves a side open. Entries older than
// Options.StartAt are left out. It holds one page in memory.
//
// A row may be shown twice where Kong's log changes meanwhile. An error of f ends
// the scan and is returned as it is.
func (r *Reader) Scan(ctx context.Context, since, until int64, f func(Scanned) error) error {
	w := r.Walk()
	if err := w.Probe(ctx); err != nil {
		return err
	}
	floor := max(since, r.opts.StartAt)
	return w.Run(ctx, Bounds{Floor: floor, RestartFloor: floor, Until: until}, func(s Step) error {
		page := Scanned{Order: s.Order, Now: w.began.Unix(), Restart: s.Restart}
		page.Entries = s.Entries[:0:len(s.Entries)]
		for i := range s.Entries {
			if s.Entries[i].Timestamp >= floor { // queries begin a second early
				page.Entries = append(page.Entries, s.Entries[i])
			}
		}
		return f(page)
	})
}
