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
	bounds := Bounds{Floor: floor, RestartFloor: floor, Since: since, Until: until}
	return w.Run(ctx, bounds, func(s Step) error {
		return f(Scanned{Entries: s.Entries, Order: s.Order, Now: w.kongTime.Unix(), Restart: s.Restart})
	})
}
