package walk

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// confirm returns a page once it can be believed, which may take further queries. A page that
// shows too little would end the walk as if it were complete.
func (w *Walk) confirm(ctx context.Context, q audit.Query, page audit.Page) (audit.Page, error) {
	page, err := w.confirmEmpty(ctx, q, page)
	if err == nil {
		page, err = w.confirmFilter(ctx, q, page)
	}
	if err == nil {
		err = w.confirmEnd(ctx, q, page)
	}
	if w.order == OldestFirst && errors.Is(err, audit.ErrUnsupportedQuery) { // of a node of an older release
		err = &disorderError{refusesTime}
	}
	q.Size = w.asked
	w.earlier = append(w.earlier[max(0, len(w.earlier)+1-maxEarlier):], q)
	return page, err
}

// aside asks for a page that is not part of the walk.
func (w *Walk) aside(ctx context.Context, q audit.Query) (audit.Page, error) {
	page, err := w.reader.opts.Source.Page(ctx, q)
	if err == nil {
		w.answered(page)
	}
	return page, err
}

func (w *Walk) answered(page audit.Page) {
	w.pages++
	w.showed = w.showed || len(page.Entries) > 0
}

// confirmEmpty returns an empty page only if there may be nothing more to read. Kong gives an
// offset only where rows follow, and a query by time shows again the last rows of the query
// before. So an empty page mostly means that something broke the answer; but Kong may also
// have purged the rows meanwhile.
func (w *Walk) confirmEmpty(ctx context.Context, q audit.Query, page audit.Page) (audit.Page, error) {
	isEmpty := func() bool { return len(page.Entries) == 0 && page.Offset == "" }
	if !isEmpty() || !w.paged && q.Offset == "" && q.After != 0 {
		return page, nil // it is the first query by time: see confirmFilter
	}
	if q.Offset == "" && !w.showed && !w.startedOver { // is the log empty?
		if newest, err := w.aside(ctx, audit.Query{Size: 1}); err != nil || len(newest.Entries) == 0 {
			return page, err
		}
	}
	if purged, err := w.purged(ctx); err != nil || purged {
		return page, err
	}
	for range 2 {
		var err error
		if page, err = w.page(ctx, q); err != nil || !isEmpty() {
			return page, err
		}
	}
	return page, w.confirmNone(ctx, q)
}

// maxEarlier is how many queries are remembered to find out what was purged.
const maxEarlier = 10

// purged reports whether a page that was read before has become the last one, because Kong
// has purged all rows behind it.
func (w *Walk) purged(ctx context.Context) (bool, error) {
	if w.order == OldestFirst { // the oldest rows go first: what is behind a page stays
		return false, nil
	}
	for _, q := range slices.Backward(w.earlier) {
		page, err := w.aside(ctx, q)
		switch {
		case errors.Is(err, audit.ErrBadOffset), errors.Is(err, audit.ErrPageTooLarge): // its rows have been purged as well, or others are there
		case err != nil:
			return false, err
		case len(page.Entries) > 0:
			return page.Offset == "", nil
		}
	}
	return false, nil
}

// errNoRows is the error of a walk whose offset leads nowhere. That may pass: in a log without
// order, all rows behind an offset may expire while others come before them.
var errNoRows = errors.New("kong shows no rows at an offset that it gave")

// confirmNone fails if there must be rows where a query has shown none, again and again.
func (w *Walk) confirmNone(ctx context.Context, q audit.Query) error {
	if q.Offset != "" && w.order == OldestFirst {
		return &disorderError{"there are no rows at an offset"}
	}
	if q.Offset != "" {
		return audit.WithHint(errNoRows, somethingBetween)
	}
	newest, err := w.aside(ctx, audit.Query{Size: 1})
	switch {
	case err != nil:
	case len(newest.Entries) == 0:
		err = audit.WithHint(errors.New("kong shows no rows any more, after it has shown some"),
			"find out whether the audit table was emptied just now, or what stands between the relay and Kong and answers in its place")
	case len(newest.Entries) > 0 && q.After == 0:
		err = audit.WithHint(errors.New("kong shows no rows to a query for all, and one to a query for the newest"), somethingBetween)
	}
	return err
}

const somethingBetween = "look at what is between the relay and Kong: something answers in its place; name a node of Kong itself with KONG_ADMIN_API"

// confirmFilter returns the first page of a query by time, and fails with a [*disorderError]
// if Kong's filter leaves out what it must show: everything, although the log has newer rows,
// or the rows at which the query before ended.
func (w *Walk) confirmFilter(ctx context.Context, q audit.Query, page audit.Page) (audit.Page, error) {
	if w.order != OldestFirst || q.After == 0 || q.Offset != "" {
		return page, nil
	}
	if len(page.Entries) == 0 {
		newest, ok, err := w.one(ctx, audit.Query{Size: 1})
		if err != nil || !ok || newest <= q.After {
			return page, err
		}
		page, err = w.page(ctx, q) // the row may have come meanwhile
		if err == nil && len(page.Entries) == 0 {
			err = &disorderError{"a filter by time shows nothing, although the log has newer rows"}
		}
		return page, err
	}
	if begin, ok := firstTime(page.Entries); !ok || begin <= w.last || w.seam.shares(page.Entries) {
		return page, nil
	}
	oldest, ok, err := w.one(ctx, audit.Query{Size: 1, Ascending: true})
	if err == nil && ok && oldest <= w.last { // else Kong has purged those rows
		err = &disorderError{"a filter by time leaves out rows that were shown before"}
	}
	return page, err
}

// usualSize divides every page size to which Kong, or something before it, may cut a page:
// Kong's default is 100.
const usualSize = 100

// confirmEnd fails if a page without an offset is not the last one. It asks only about pages
// that may be full: the same page asked for with one row less must then have an offset, unless
// rows expire and come meanwhile.
func (w *Walk) confirmEnd(ctx context.Context, q audit.Query, page audit.Page) error {
	n := len(page.Entries)
	if page.Offset != "" || n < 2 || n < w.asked && n%usualSize != 0 {
		return nil
	}
	for range 3 {
		q.Size = n - 1
		shorter, err := w.aside(ctx, q)
		if err != nil || shorter.Offset != "" || len(shorter.Entries) < n-1 {
			return endAnyway(err)
		}
		q.Size = n // if there are not as many any more, a row has expired meanwhile
		again, err := w.aside(ctx, q)
		if err != nil || again.Offset == "" && len(again.Entries) < n {
			return endAnyway(err)
		}
		if slices.EqualFunc(page.Entries, again.Entries, sameID) {
			break
		}
		page = again // a row has come as well
	}
	return audit.WithHint(fmt.Errorf("kong gave %d rows and no offset for those that follow: the log cannot be read to its end", n-1),
		"look at what is between the relay and Kong: something takes fields out of its answers; name a node of Kong itself with KONG_ADMIN_API")
}

func sameID(a, b audit.Entry) bool { return a.ID == b.ID }

// endAnyway returns the error of a query that was to confirm the last page. If Kong no longer
// accepts the offset, the rows there have expired, and endAnyway returns nil.
func endAnyway(err error) error {
	if errors.Is(err, audit.ErrBadOffset) {
		return nil
	}
	return err
}

// firstTime returns the timestamp of the first row that has one.
func firstTime(entries []audit.Entry) (timestamp int64, ok bool) {
	for i := range entries {
		if !entries[i].TimestampGuessed {
			return entries[i].Timestamp, true
		}
	}
	return 0, false
}

// one asks for a single row, and returns its timestamp.
func (w *Walk) one(ctx context.Context, q audit.Query) (timestamp int64, ok bool, err error) {
	page, err := w.aside(ctx, q)
	if err != nil {
		return 0, false, err
	}
	timestamp, ok = firstTime(page.Entries)
	return timestamp, ok, nil
}
