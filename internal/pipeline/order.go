package pipeline

import (
	"cmp"
	"errors"
	"slices"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// order is a way of reading the log. Each release of Kong has its own, and which
// one is found out by what comes back, never by its version.
type order int

const (
	unknownOrder order = iota
	oldestFirst        // from a time, with after and sort_by
	newestFirst        // until a whole page is older than the floor
	noOrder            // everything
)

// Unordered is Summary.Order where the log has no order, so that each pass reads
// all of it.
const Unordered = "unordered"

func (o order) String() string {
	switch o {
	case oldestFirst:
		return "oldest-first"
	case newestFirst:
		return "newest-first"
	case noOrder:
		return Unordered
	}
	return "unknown"
}

// disorder says that a page was not what its order promised.
type disorder struct{ reason string }

func (e *disorder) Error() string { return e.reason }

// errReordered: a walk without order was cut, and Kong has an order by now. An
// offset of the one means nothing in the other.
var errReordered = errors.New("rows have an order now")

// errNoOrder ends a tail where Kong has no order: only a whole pass will do.
var errNoOrder = errors.New("rows have no order")

// provenBy is how many changes of the timestamp, all in one direction, prove an
// order. Rows at random have fewer: eight in a row have one chance in 362,880.
const provenBy = 8

// proven tells whether the order may be relied on. A thousand rows of one second
// look ordered every way.
func (w *walk) proven() bool { return w.order != noOrder && w.changes >= provenBy }

// descends tells whether rows are newest first, as a whole page of rows without
// order hardly ever is.
func descends(entries []audit.Entry) bool {
	newer := func(a, b audit.Entry) int { return cmp.Compare(b.Timestamp, a.Timestamp) }
	return len(entries) > 0 && entries[0].Timestamp != entries[len(entries)-1].Timestamp && slices.IsSortedFunc(entries, newer)
}
