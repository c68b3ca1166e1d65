package walk

import (
	"context"
	"errors"
	"fmt"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// confirm returns a page that the answer to a query can be believed to be. A page that shows
// too little would end the walk as if it were complete.
func (w *Walk) confirm(ctx context.Context, q audit.Query, page audit.Page) (audit.Page, error) {
	page, err := w.confirmEmpty(ctx, q, page)
	if err == nil {
		page, err = w.confirmFilter(ctx, q, page)
	}
	if err == nil {
		err = w.confirmEnd(ctx, q, page)
	}
	w.showed = w.showed || len(page.Entries) > 0
	return page, err
}

// confirmEmpty returns an empty page that follows rows only if Kong shows it again and again,
// and still shows other rows. Kong gives an offset only where rows follow, so an empty page is
// as a rule an answer that something broke; but the rows may have been purged meanwhile.
func (w *Walk) confirmEmpty(ctx context.Context, q audit.Query, page audit.Page) (audit.Page, error) {
	if len(page.Entries) > 0 || page.Offset != "" || !w.showed {
		return page, nil
	}
	other, err := w.page(ctx, audit.Query{Size: 1})
	if err == nil && len(other.Entries) == 0 {
		err = audit.WithHint(errors.New("kong shows no rows any more, after it has shown some to this pass"),
			"find out whether the audit table was emptied just now, or what stands between the relay and Kong and answers in its place")
	}
	for range 2 {
		if err != nil || len(page.Entries) > 0 {
			break
		}
		page, err = w.page(ctx, q)
	}
	return page, err
}

// confirmFilter returns the first page of a query by time, and fails with a [*disorderError]
// if Kong's filter leaves out what it must show: everything, although the log has newer rows,
// or the rows at which the query before ended.
func (w *Walk) confirmFilter(ctx context.Context, q audit.Query, page audit.Page) (audit.Page, error) {
	if w.order != OldestFirst || q.After == 0 || q.Offset != "" {
		return page, nil
	}
	switch {
	case len(page.Entries) == 0:
		newest, ok, err := w.one(ctx, audit.Query{Size: 1})
		if err != nil || !ok || newest <= q.After {
			return page, err
		}
		page, err = w.page(ctx, q) // the row may have come meanwhile
		if err == nil && len(page.Entries) == 0 {
			err = &disorderError{"a filter by time shows nothing, although the log has newer rows"}
		}
		return page, err
	case w.seam.shares(page.Entries):
		return page, nil
	}
	oldest, ok, err := w.one(ctx, audit.Query{Size: 1, Ascending: true})
	if err == nil && ok && oldest <= w.last { // else Kong has purged those rows
		err = &disorderError{"a filter by time leaves out rows that were shown before"}
	}
	return page, err
}

// usualSize divides the sizes to which a page is cut that was asked for more: Kong's default
// is 100.
const usualSize = 100

// confirmEnd fails if a page without an offset that seems to be a full one is not the last: one
// that is shorter by a row must have an offset then.
func (w *Walk) confirmEnd(ctx context.Context, q audit.Query, page audit.Page) error {
	n := len(page.Entries)
	if page.Offset != "" || n < 2 || n < w.asked && n%usualSize != 0 {
		return nil
	}
	q.Size = n - 1
	shorter, err := w.page(ctx, q)
	if err == nil && shorter.Offset == "" && len(shorter.Entries) >= n-1 && w.asked == n-1 {
		err = audit.WithHint(fmt.Errorf("kong gave %d rows and no offset for those that follow: the log cannot be read to its end", n-1),
			"look at what is between the relay and Kong: something takes fields out of its answers; name a node of Kong itself with KONG_ADMIN_API")
	}
	return err
}

// one asks for a single row, and returns its timestamp.
func (w *Walk) one(ctx context.Context, q audit.Query) (timestamp int64, ok bool, err error) {
	page, err := w.page(ctx, q)
	if err != nil || len(page.Entries) == 0 || page.Entries[0].TimestampGuessed {
		return 0, false, err
	}
	return page.Entries[0].Timestamp, true, nil
}
