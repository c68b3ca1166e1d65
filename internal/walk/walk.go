// Package walk reads Kong's audit log in whichever order Kong keeps it, and checks
// that Kong keeps that order.
package walk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Source reads the log. Page returns a complete page or an error, changes nothing, and
// itself retries for some seconds what may pass. Safe for concurrent use.
type Source interface {
	Page(ctx context.Context, q audit.Query) (audit.Page, error)
}

// Options of a [Reader]. Source is required.
type Options struct {
	Source Source
	// PageSize is the number of rows asked for, 1 to 1000. Default 1000.
	PageSize int
	// StartAt leaves out entries older than this Unix second. 0 leaves out none.
	StartAt int64
	Logger  *slog.Logger
}

// Reader reads one log. From one walk to the next it remembers the order that Kong
// keeps and the warnings that it has given. It is safe for concurrent use.
type Reader struct {
	opts   Options
	log    *slog.Logger
	warned sync.Map // warnings that are given once

	order atomic.Int32 // the Order that the last walk found
}

// NewReader returns a reader.
func NewReader(o Options) *Reader {
	o.PageSize = cmp.Or(o.PageSize, 1000)
	return &Reader{opts: o, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler))}
}

// Order returns the order that the last walk found.
func (r *Reader) Order() Order { return Order(r.order.Load()) }

// firstWarning reports whether no warning with this key has been given yet.
func (r *Reader) firstWarning(key string) bool {
	_, given := r.warned.LoadOrStore(key, true)
	return !given
}

// Walk returns a walk in the order that the last one found.
func (r *Reader) Walk() *Walk {
	return &Walk{reader: r, order: r.Order(), size: r.opts.PageSize}
}

// Bounds say what a walk reads. Times are Unix seconds.
type Bounds struct {
	Floor int64 // oldest second to read; 0 reads everything
	Since int64 // oldest second to hand on; 0 hands on all that is read
	Until int64 // first second not to hand on; 0 reads to the end
	// RestartFloor replaces Floor if the walk has to start over in another order. It is
	// earlier than Floor for a walk that continues where another one was cut.
	RestartFloor int64
	// Offset is the token to begin with, for a walk in another order than [OldestFirst] that
	// continues where an earlier one was cut.
	Offset string
}

// Step is one page that the walk hands to its caller, or the news that the walk starts
// over in another order.
type Step struct {
	Entries []audit.Entry // those that this walk has not handed on before
	// Through is the Unix second up to which an [OldestFirst] walk has read everything, once
	// its order is proven. It is 0 otherwise.
	Through int64
	// Offset is Kong's token for the page after this one. It is empty if no page follows.
	Offset  string
	Restart bool
	Now     int64         // Kong's clock when the walk began, Unix seconds
	Took    time.Duration // how long reading the page took
	Position
}

// Position is how far a walk has come.
type Position struct {
	Order  Order
	Pages  int   // answered requests
	Newest int64 // newest timestamp. NewestFirst: of the first row; Unordered: of all rows read; OldestFirst: 0
	Last   int64 // timestamp of the last row read
}

// Walk reads the log once, from a floor to its end. One goroutine owns it.
type Walk struct {
	reader   *Reader
	order    Order
	bounds   Bounds
	kongTime time.Time // see KongTime
	began    time.Time // by this machine's clock, when kongTime was known

	pages    int
	size     int // rows to ask for
	asked    int // rows that were asked for with the last page
	cooldown int // pages still to read before more rows are asked for

	query
	ahead       readAhead
	ordinals    audit.Ordinals
	seam        seam
	timeSteps   int           // how often the timestamp has changed, in order
	last        int64         // timestamp of the last row read
	newest      int64         // see Position
	previous    []string      // in a NewestFirst walk: ids of the page before
	paged       bool          // a page was read in this order
	showed      bool          // the log showed rows, in any order
	earlier     []audit.Query // the queries of the last pages
	startedOver bool          // the walk has started over, because Kong did not go on at an offset
}

// query is the state of the query by time that a walk is making.
type query struct {
	after      int64           // its lower bound
	offsets    map[string]bool // offsets used
	rows       int             // rows seen
	timed      int             // of those, rows with a timestamp
	badOffsets int             // offsets that Kong gave and then did not accept
	hash       maphash.Hash
	shown      map[uint64]bool // pages that were read, as hashes of their ids
	idle       int             // pages that showed nothing new: the same rows again, or none
}

// maxIdle is how many pages of a query may show nothing new. Without a limit the walk would
// never end if Kong gave ever new offsets for the same rows.
const maxIdle = 100

// isIdle notes a page, and reports whether too many have shown nothing new.
func (q *query) isIdle(entries []audit.Entry) bool {
	q.hash.Reset()
	for i := range entries {
		_, _ = q.hash.WriteString(entries[i].ID) // never fails
	}
	sum := q.hash.Sum64()
	if q.shown[sum] {
		q.idle++
	}
	q.shown[sum] = true
	return q.idle > maxIdle
}

func (w *Walk) beginQuery(after int64) {
	w.query = query{after: after, offsets: map[string]bool{}, shown: map[uint64]bool{}}
}

// KongTime returns Kong's clock when it answered the walk's first request, or the
// zero time before that.
func (w *Walk) KongTime() time.Time { return w.kongTime }

// Now returns Kong's clock as it must be by now: [Walk.KongTime] and the time since.
func (w *Walk) Now() time.Time { return w.kongTime.Add(time.Since(w.began)) }

// Order returns the order in which the walk reads.
func (w *Walk) Order() Order { return w.order }

// ReadIn makes the walk read in an order, before it runs.
func (w *Walk) ReadIn(o Order) { w.order = o }

// EndAt replaces [Bounds.Until]. The function that Run hands pages to may call it.
func (w *Walk) EndAt(until int64) { w.bounds.Until = until }

// Position returns how far the walk has come.
func (w *Walk) Position() Position {
	return Position{Order: w.order, Pages: w.pages, Newest: w.newest, Last: w.last}
}

// Run reads to the end and calls emit with each page. It returns nil once the walk is
// complete, and otherwise the error of the source or of emit. If the order is [Unknown],
// Run calls [Walk.Probe] first.
func (w *Walk) Run(ctx context.Context, b Bounds, emit func(Step) error) error {
	if w.order == Unknown {
		if err := w.Probe(ctx); err != nil {
			return err
		}
	}
	w.bounds = b
	w.size = w.reader.opts.PageSize
	defer func() { w.reader.order.Store(int32(w.order)) }()
	for {
		err := w.inOrder(ctx, emit)
		var broken *disorderError
		switch {
		case errors.As(err, &broken):
			if w.reader.firstWarning("order " + w.order.String()) {
				w.reader.log.Warn("kong did not keep the order it promised, reading another way",
					"order", w.order.String(), "next", w.order.fallback().String(), "reason", broken.reason)
			}
			w.order = w.order.fallback()
		case errors.Is(err, errReordered):
			w.order = NewestFirst
		case w.order != OldestFirst && !w.startedOver && (errors.Is(err, audit.ErrBadOffset) || errors.Is(err, errNoRows) || w.stuck(ctx, err)):
			w.startedOver = true
			w.reader.log.Warn("kong does not go on at an offset, starting over", "resumed", w.bounds.Offset != "", "err", err)
		default:
			return err
		}
		w.bounds.Offset, w.bounds.Floor = "", w.bounds.RestartFloor
		w.ordinals = audit.Ordinals{}
		if err := emit(Step{Restart: true, Now: w.kongTime.Unix(), Position: w.Position()}); err != nil {
			return err
		}
	}
}

// stuck reports whether a walk that continues where an earlier one was cut has failed at
// its first page. Kong would give the same answer to that offset again.
func (w *Walk) stuck(ctx context.Context, err error) bool {
	return err != nil && w.bounds.Offset != "" && !w.paged && ctx.Err() == nil
}

// inOrder reads to the end in one order. It fails with a [*disorderError] where Kong does
// not keep that order.
func (w *Walk) inOrder(ctx context.Context, emit func(Step) error) error {
	w.timeSteps, w.last, w.newest, w.previous, w.seam, w.paged, w.earlier = 0, 0, 0, nil, seam{}, false, nil
	w.ahead.on = true
	defer w.stopAhead()
	q := w.firstQuery()
	w.beginQuery(q.After)
	for {
		begin := time.Now()
		page, err := w.pageInOrder(ctx, &q)
		if err == nil {
			page, err = w.confirm(ctx, q, page)
		}
		if err != nil {
			return err
		}
		if w.order == Unordered && w.bounds.Offset != "" && !w.paged && descends(page.Entries) {
			return errReordered
		}
		w.paged = true
		if err := w.check(page.Entries); err != nil {
			return err
		}
		w.rows += len(page.Entries)
		idle := w.isIdle(page.Entries)
		w.ordinals.Assign(page.Entries)
		if w.order == NewestFirst && w.proven() {
			w.ordinals.DropFrom(w.last + 1)
		}
		// From here on the entries belong to the caller of Run.
		end := page.Offset == "" || w.pastBounds(page.Entries)
		s := Step{Offset: page.Offset, Now: w.kongTime.Unix(), Position: w.Position()}
		s.Entries = w.handOn(page.Entries)
		s.Took = time.Since(begin)
		if w.order == OldestFirst && w.proven() {
			s.Through = w.last
		}
		if err := emit(s); err != nil {
			return err
		}
		if end {
			return nil
		}
		if w.offsets[page.Offset] || idle {
			what := "the same offset twice"
			if idle {
				what = "the same rows again and again"
			}
			return audit.WithHint(fmt.Errorf("kong gave %s after %d rows: the log cannot be read to its end", what, w.rows),
				"look at what is between the relay and Kong: something repeats answers, such as a cache; name a node of Kong itself with KONG_ADMIN_API")
		}
		if next, ok := w.nextTime(); ok {
			q.After, q.Offset = next, ""
			w.beginQuery(next)
			w.seam.prune(next)
			w.ordinals.DropFrom(next)
			w.ordinals.DropBefore(next)
			continue
		}
		w.offsets[page.Offset] = true
		q.Offset = page.Offset
	}
}

// pageInOrder asks for a page. Where Kong does not accept an offset that it gave, an
// oldest-first walk asks for the second again.
func (w *Walk) pageInOrder(ctx context.Context, q *audit.Query) (audit.Page, error) {
	for {
		q.Size = w.size
		page, err := w.page(ctx, *q)
		switch {
		case err == nil || w.order != OldestFirst:
			return page, err
		case errors.Is(err, audit.ErrUnsupportedQuery):
			return page, &disorderError{refusesTime}
		case !errors.Is(err, audit.ErrBadOffset) || w.badOffsets == maxBadOffsets:
			return page, err
		}
		bad := w.badOffsets + 1
		w.reader.log.Warn("kong did not accept its own offset, asking for the second again", "err", err)
		w.beginQuery(w.after)
		q.Offset, w.badOffsets = "", bad
		w.ordinals.DropFrom(q.After)
	}
}

func (w *Walk) firstQuery() audit.Query {
	if w.order != OldestFirst {
		return audit.Query{Offset: w.bounds.Offset}
	}
	q := audit.Query{Ascending: true}
	if w.bounds.Floor > 1 {
		q.After = w.bounds.Floor - 1 // a node of Kong may leave out the second of `after` itself
	}
	return q
}

// nextTime returns the time from which an oldest-first walk can continue, if that has moved
// forward. Continuing by time skips nothing when Kong purges or inserts rows meanwhile;
// continuing by offset might. The second of the last row and the one before are read again,
// because some nodes of Kong leave out the second of `after` itself.
func (w *Walk) nextTime() (int64, bool) {
	if w.order != OldestFirst || w.timeSteps == 0 || w.last-1 <= w.after {
		return 0, false
	}
	return w.last - 1, true
}

// pastBounds reports whether everything after a page is outside the bounds.
func (w *Walk) pastBounds(entries []audit.Entry) bool {
	if !w.proven() {
		return false
	}
	switch w.order {
	case OldestFirst:
		return w.bounds.Until != 0 && w.last > w.bounds.Until
	case NewestFirst:
		for i := range entries {
			if !entries[i].TimestampGuessed {
				return entries[i].Timestamp < w.bounds.Floor
			}
		}
	case Unknown, Unordered:
	}
	return false
}

// handOn returns the entries that are within the bounds and that this walk has not handed
// on before: two of its queries by time overlap.
func (w *Walk) handOn(entries []audit.Entry) []audit.Entry {
	kept := entries[:0:len(entries)]
	since := max(w.bounds.Since, w.reader.opts.StartAt)
	for i := range entries {
		e := &entries[i]
		if w.order == OldestFirst && !w.seam.add(e, w.last-1) {
			continue
		}
		if (w.bounds.Until != 0 && e.Timestamp >= w.bounds.Until) || (since != 0 && e.Timestamp < since) {
			continue
		}
		if len(kept) == i { // as a rule: no need for a copy
			kept = entries[: i+1 : len(entries)]
		} else {
			kept = append(kept, *e)
		}
	}
	return kept
}
