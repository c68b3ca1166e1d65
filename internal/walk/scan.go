package walk

import "context"

// Scan reads the log as a pass does and hands it over page by page. since and
// until (excluded) are Unix seconds; 0 leaves a side open. Entries older than
// Options.StartAt are left out. It holds two pages in memory, one of which is still
// being read: entries are valid until f returns. A [Step] with Restart set means that f gets
// all entries from the beginning again.
//
// f may get a row twice if Kong's log changes meanwhile. An error of f ends the scan, and
// Scan returns it as it is.
func (r *Reader) Scan(ctx context.Context, since, until int64, f func(Step) error) error {
	w := r.Walk()
	if err := w.Probe(ctx); err != nil {
		return err
	}
	floor := max(since, r.opts.StartAt)
	return w.Run(ctx, Bounds{Floor: floor, RestartFloor: floor, Since: since, Until: until}, f)
}
