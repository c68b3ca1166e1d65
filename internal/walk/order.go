package walk

import (
	"cmp"
	"errors"
	"slices"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Order is a way of reading the log. What Kong answers shows which one it offers; its
// version is not asked for.
type Order int32

// Orders, in the sequence in which they are tried.
const (
	Unknown     Order = iota
	OldestFirst       // from a time, with after and sort_by
	NewestFirst       // until a whole page is older than the floor
	Unordered         // everything
)

func (o Order) String() string {
	switch o {
	case OldestFirst:
		return "oldest-first"
	case NewestFirst:
		return "newest-first"
	case Unordered:
		return "unordered"
	case Unknown:
	}
	return "unknown"
}

// fallback returns the order to try after one that Kong did not keep.
func (o Order) fallback() Order { return o + 1 }

// disorderError says how a page broke what its order promises.
type disorderError struct{ reason string }

func (e *disorderError) Error() string { return e.reason }

const refusesTime = "kong refuses to filter or to sort by time"

// errReordered ends a walk without order that continues at an offset if Kong has begun to
// sort meanwhile: the offset means nothing in the new order.
var errReordered = errors.New("rows have an order now")

// provenBy is how many changes of the timestamp, all in one direction, prove an
// order. Rows in random order pass for ordered with a chance of one in 362,880.
const provenBy = 8

// maxBadOffsets is how often an oldest-first walk asks for one second again because
// Kong does not accept an offset.
const maxBadOffsets = 3

// proven reports whether the order can be relied on. A thousand rows of one second prove
// nothing: they look ordered either way.
func (w *Walk) proven() bool { return w.order != Unordered && w.timeSteps >= provenBy }

// descends reports whether rows are newest first, which a whole page of a log without order
// hardly ever is.
func descends(entries []audit.Entry) bool {
	newer := func(a, b audit.Entry) int { return cmp.Compare(b.Timestamp, a.Timestamp) }
	return len(entries) > 0 && entries[0].Timestamp != entries[len(entries)-1].Timestamp && slices.IsSortedFunc(entries, newer)
}

// check returns an error if a page does not keep the order.
func (w *Walk) check(entries []audit.Entry) error {
	// Where an offset counts rows, new rows push the last rows of the previous page onto
	// this one.
	repeats := w.previous != nil
	for i := range entries {
		if entries[i].TimestampGuessed { // such a time says nothing about the order
			continue
		}
		t, first := entries[i].Timestamp, w.timed == 0
		w.timed++
		switch w.order {
		case OldestFirst:
			if t < w.after {
				return &disorderError{"a row is older than the time asked for"}
			}
			if !first && t < w.last {
				return &disorderError{"rows are not oldest first"}
			}
		case NewestFirst:
			repeats = repeats && slices.Contains(w.previous, entries[i].ID)
			if !first && t > w.last {
				if repeats {
					continue
				}
				return &disorderError{"rows are not newest first"}
			}
			if first {
				w.newest = t
			}
		case Unordered, Unknown:
			w.newest = max(w.newest, t)
		}
		if !first && t != w.last {
			w.timeSteps++
		}
		w.last = t
	}
	if w.ignoresTime(entries) {
		return &disorderError{"no row of a query by time has a time"}
	}
	if w.order == NewestFirst {
		w.previous = make([]string, len(entries))
		for i := range entries {
			w.previous[i] = entries[i].ID
		}
	}
	return nil
}

// ignoresTime reports whether a page does not answer a query by time: none of its rows has
// one. Kong shows no times where it cannot filter by them.
func (w *Walk) ignoresTime(entries []audit.Entry) bool {
	return w.order == OldestFirst && w.after > 1 && w.timed == 0 && len(entries) > 0
}
