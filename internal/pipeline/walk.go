package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// farFuture is the second for the probe: 2100-01-01. No row is that new, so a Kong
// that filters by time answers with an empty page.
const farFuture = 4102444800

// maxBoundary bounds the ids that are remembered of the seconds that two queries
// overlap in. Past it the ledger drops the overlap.
const maxBoundary = 20_000

// waryFor is how many pages are read after one that was too large before more rows
// are asked for: large rows seldom come alone.
const waryFor = 8

// step is a page on its way from the walk to the pass, or the news that the walk
// began again in another order.
type step struct {
	entries []audit.Entry
	// through is the last timestamp of an ordered walk's page once its order is
	// proven, and 0 otherwise: all that is older has been read.
	through int64
	// offset is the token with which the walk goes on after this page, in the
	// orders other than oldest first.
	offset  string
	restart bool
	took    time.Duration
	pos     position
}

// position is what a pass may know of a walk while it goes on.
type position struct {
	order  order
	pages  int
	newest int64 // of the first page, newest first; of all, without order
	last   int64 // timestamp of the last row read
}

func (w *walk) position() position {
	return position{order: w.order, pages: w.pages, newest: w.newest, last: w.last}
}

// walk reads the log from a floor to its end. One goroutine owns it.
type walk struct {
	p     *Pipeline
	floor int64 // oldest second to read; 0 reads all
	since int64 // oldest second to hand on, for a window; the floor may read a little more
	base  int64 // the same for a walk that has to start over: a cut one began further on
	until int64 // first second not to read; 0 reads to the end
	order order
	start string // offset to begin with, for a walk that was cut

	began  time.Time // Kong's clock at the first page
	newest int64     // newest timestamp of the first page, newest first; of all, without order

	size      int
	wary      int // pages yet to be read before more rows are asked for again
	ordinals  audit.Ordinals
	offsets   map[string]bool
	boundary  map[string]int64 // ids and times of rows that the next query may show again
	latest    int64            // of those times
	before    []string         // ids of the page before, newest first
	rebegun   bool             // started over because an offset was not accepted
	inclusive bool             // seen that `after` includes its own second
	changes   int              // how often timestamps have changed, in order
	after     int64            // of the query that the walk is in
	last      int64            // timestamp of the last row read, oldest or newest first
	rows      int              // rows seen in this chain of offsets
	pages     int
}

// probe finds out whether Kong filters by time. It costs one small page, and is
// the first of the pass, so its date is the pass's clock.
func (w *walk) probe(ctx context.Context) error {
	page, err := w.page(ctx, audit.Query{Size: 1, After: farFuture})
	if err != nil {
		return err
	}
	was := w.order
	if w.order = newestFirst; len(page.Entries) == 0 {
		w.order = oldestFirst
	} else if was != newestFirst && was != noOrder {
		w.p.log.Info("kong does not filter by time, reading newest first")
	}
	return nil
}

// page asks for a page, and for a smaller one where that may help.
func (w *walk) page(ctx context.Context, q audit.Query) (audit.Page, error) {
	for failed := 0; ; {
		page, err := w.p.opts.Source.Page(ctx, q)
		if err == nil {
			w.pages++
			w.p.own.add(page.RequestIDs)
			if w.began.IsZero() {
				w.clock(page.Date)
			}
			switch {
			case q.After == farFuture || page.Bytes >= 400<<10:
			case w.wary > 0:
				w.wary--
			default:
				w.size = min(w.p.opts.PageSize, w.size*2)
			}
			return page, nil
		}
		switch {
		case ctx.Err() != nil, audit.NeedsPerson(err), errors.Is(err, audit.ErrBadOffset), q.Size <= 1:
			return audit.Page{}, err
		case errors.Is(err, audit.ErrPageTooLarge):
			w.wary = waryFor
		default:
			// Large rows can make Kong itself fail. Ask for less, but not for ever.
			if failed++; failed > 2 {
				return audit.Page{}, err
			}
		}
		q.Size /= 2
		w.size = q.Size
		if failed > 0 {
			w.p.log.Warn("page failed, asking for fewer rows", "size", q.Size, "err", err)
		} else {
			w.p.log.Debug("page too large, asking for fewer rows", "size", q.Size, "err", err)
		}
	}
}

func (w *walk) clock(date time.Time) {
	if date.IsZero() {
		if w.p.unwarned("date") {
			w.p.log.Warn("kong sends no Date header, using this machine's clock")
		}
		date = time.Now()
	}
	w.began = date
}

// run reads to the end and hands on each page. It returns nil once the walk is
// complete.
func (w *walk) run(ctx context.Context, emit func(step) error) error {
	w.size = w.p.opts.PageSize
	for {
		err := w.once(ctx, emit)
		var bad *disorder
		switch {
		case errors.As(err, &bad):
			if w.p.unwarned("order " + w.order.String()) {
				w.p.log.Warn("kong did not keep the order it promised, reading another way",
					"order", w.order.String(), "next", (w.order + 1).String(), "reason", bad.reason)
			}
			w.order++
		case errors.Is(err, errReordered):
			w.order = newestFirst
		case errors.Is(err, audit.ErrBadOffset) && w.order != oldestFirst && !w.rebegun:
			w.rebegun = true
			w.p.log.Warn("kong does not accept an offset, starting over", "resumed", w.start != "", "err", err)
		default:
			return err
		}
		w.start, w.floor = "", w.base
		w.ordinals = audit.Ordinals{}
		if err := emit(step{restart: true, pos: w.position()}); err != nil {
			return err
		}
	}
}

func (w *walk) once(ctx context.Context, emit func(step) error) error {
	q := audit.Query{Offset: w.start}
	w.changes, w.last, w.rows, w.boundary, w.latest, w.before, w.newest = 0, 0, 0, nil, 0, nil, 0
	w.offsets = map[string]bool{}
	if w.order == oldestFirst {
		q.Ascending, q.Offset = true, ""
		if w.floor > 1 {
			q.After = w.floor - 1 // `after` may leave its own second out
		}
		w.after = q.After
	}
	rebegun, first := 0, w.pages+1
	for {
		q.Size = w.size
		begin := time.Now()
		page, err := w.page(ctx, q)
		if errors.Is(err, audit.ErrBadOffset) && w.order == oldestFirst && rebegun < 3 {
			// The time is still known: ask for the second again.
			rebegun++
			w.p.log.Warn("kong did not accept its own offset, asking for the second again", "err", err)
			q.Offset, w.offsets, w.rows = "", map[string]bool{}, 0
			w.ordinals.Forget(q.After)
			continue
		}
		if err != nil {
			return err
		}
		if w.order == noOrder && w.start != "" && w.pages == first && descends(page.Entries) {
			return errReordered
		}
		if err := w.check(page.Entries); err != nil {
			return err
		}
		w.rows += len(page.Entries)
		page.Offset = strings.Clone(page.Offset) // not the page that it is a part of
		w.ordinals.Assign(page.Entries)
		if w.order == newestFirst && w.proven() {
			w.ordinals.Forget(w.last + 1)
		}
		// From here on the entries are no longer the walk's.
		end := page.Offset == "" || w.done(page.Entries)
		s := step{offset: page.Offset, took: time.Since(begin), pos: w.position()}
		s.entries = w.fresh(page.Entries)
		if w.order == oldestFirst && w.proven() {
			s.through = w.last
		}
		if err := emit(s); err != nil {
			return err
		}
		if end {
			return nil
		}
		if w.offsets[page.Offset] {
			return fmt.Errorf("kong gave the same offset twice after %d rows: the log cannot be read to its end", w.rows)
		}
		if next, ok := w.byTime(); ok {
			q.After, q.Offset = next, ""
			w.after, w.rows, w.offsets, rebegun = next, 0, map[string]bool{}, 0
			w.ordinals.Forget(next)
			w.ordinals.Prune(next)
			continue
		}
		w.offsets[page.Offset] = true
		q.Offset = page.Offset
	}
}

// check holds a page against what its order promises.
func (w *walk) check(entries []audit.Entry) error {
	// Where an offset counts rows, those that Kong wrote meanwhile push the end of
	// the page before onto this one.
	overlap := w.before != nil
	for i := range entries {
		t := entries[i].Timestamp
		switch w.order {
		case oldestFirst:
			if t < w.after {
				return &disorder{"a row is older than the time asked for"}
			}
			w.inclusive = w.inclusive || (w.after > 0 && t == w.after)
			if w.rows+i > 0 && t < w.last {
				return &disorder{"rows are not oldest first"}
			}
		case newestFirst:
			if w.rows+i > 0 && t > w.last {
				if overlap && slices.Contains(w.before, entries[i].ID) {
					continue
				}
				return &disorder{"rows are not newest first"}
			}
			overlap = overlap && slices.Contains(w.before, entries[i].ID)
			if w.rows+i == 0 {
				w.newest = t
			}
		case noOrder:
			w.newest = max(w.newest, t)
		}
		if w.rows+i > 0 && t != w.last {
			w.changes++
		}
		w.last = t
	}
	if w.order == newestFirst {
		w.before = make([]string, len(entries))
		for i := range entries {
			w.before[i] = entries[i].ID
		}
	}
	return nil
}

// fresh leaves out the rows that this walk has handed on already, where two of
// its queries overlap, and those outside the window.
func (w *walk) fresh(entries []audit.Entry) []audit.Entry {
	kept := entries[:0:len(entries)]
	if w.order == oldestFirst && w.boundary == nil {
		w.boundary = map[string]int64{}
	}
	edge, since := w.last-1, max(w.since, w.p.opts.StartAt)
	for i := range entries {
		e := &entries[i]
		if w.order == oldestFirst {
			if e.Timestamp <= w.latest {
				if _, handedOn := w.boundary[e.ID]; handedOn {
					continue
				}
			}
			if e.Timestamp >= edge && len(w.boundary) < maxBoundary {
				w.boundary[strings.Clone(e.ID)] = e.Timestamp // not the page that it is a part of
				w.latest = max(w.latest, e.Timestamp)
			}
		}
		if (w.until != 0 && e.Timestamp >= w.until) || (since != 0 && e.Timestamp < since) {
			continue
		}
		kept = append(kept, *e)
	}
	return kept
}

// done tells whether what follows is outside the pass.
func (w *walk) done(entries []audit.Entry) bool {
	if !w.proven() || len(entries) == 0 {
		return false
	}
	switch w.order {
	case oldestFirst:
		return w.until != 0 && entries[len(entries)-1].Timestamp > w.until
	case newestFirst:
		return entries[0].Timestamp < w.floor
	}
	return false
}

// byTime returns the time with which an oldest-first walk can go on, if the page
// brought it forward. Going on by time skips nothing when Kong purges or inserts
// rows meanwhile, which going on by offset might.
func (w *walk) byTime() (int64, bool) {
	if w.order != oldestFirst || w.changes == 0 {
		return 0, false
	}
	next := w.last - 1
	if w.inclusive {
		next = w.last
	}
	if next <= w.after {
		return 0, false
	}
	maps.DeleteFunc(w.boundary, func(_ string, t int64) bool { return t < next })
	return next, true
}
