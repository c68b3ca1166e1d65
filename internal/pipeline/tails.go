package pipeline

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// wordEvery is how often a pass looks whether another relay has left word.
	wordEvery = 250 * time.Millisecond
	// tailWorkers is the number of batches of tails beside a walk that are put at once.
	tailWorkers = 2
)

// tails makes tails beside the walk of a pass, so that a trigger does not wait for
// its end. They move no mark: what lies between is the walk's to read.
type tails struct {
	ps      *pass
	batcher batcher
	order   order
	head    int64 // newest second that was read
	stop    context.CancelFunc
	owed    atomic.Int32 // how many were wanted and have not been made
}

// startTails begins to make tails beside the walk, once the walk has found its
// order. It is called again with each page.
func (ps *pass) startTails(ctx, work context.Context, aside *workers) {
	if ps.tails != nil || ps.held == nil || ps.req.Kind == Window || ps.pos.order == noOrder {
		return
	}
	reading, stop := context.WithCancel(ctx)
	ps.tails = &tails{
		ps: ps, batcher: batcher{ps: ps, workers: aside}, order: ps.pos.order, stop: stop,
		head: max(ps.marks.Cursor, ps.walk.began.Unix()-wideBack),
	}
	aside.group.Go(func() error { return ps.tails.run(ctx, reading, work) })
}

// run makes a tail whenever one is wanted, until reading ends.
func (t *tails) run(ctx, reading, work context.Context) error {
	wanted := make(chan struct{})
	listening, reading := errgroup.WithContext(reading)
	listen := func(wait func(ctx context.Context) error) {
		listening.Go(func() error {
			for {
				if err := wait(reading); err != nil {
					return err
				}
				t.owed.Add(1)
				select {
				case wanted <- struct{}{}:
				case <-reading.Done():
					return nil
				}
			}
		})
	}
	if t.ps.req.TailWanted != nil {
		listen(t.ps.req.TailWanted)
	}
	listen(t.word)
	defer func() {
		t.stop()
		_ = listening.Wait() // says only that it was told to stop
	}()
	for {
		select {
		case <-reading.Done():
			return nil
		case <-wanted:
		}
		if err := t.tail(ctx, reading, work); err != nil {
			return err
		}
	}
}

// word waits until another relay leaves word.
func (t *tails) word(ctx context.Context) error {
	for {
		if err := sleep(ctx, wordEvery); err != nil {
			return err
		}
		// An error is the renewal's to deal with.
		if word, err := t.ps.held.lease.RerunRequested(ctx); err == nil && word {
			if t.ps.req.Word != nil {
				t.ps.req.Word(ctx)
			}
			return nil
		}
	}
}

// tail reads the newest rows. One that Kong does not let it read is left to the
// walk, which meets the same trouble, and to the next tail.
func (t *tails) tail(ctx, reading, work context.Context) error {
	ps := t.ps
	w := &walk{p: ps.p, order: t.order, floor: max(ps.p.tailFloor(t.head), ps.p.opts.StartAt)}
	w.base = w.floor
	// What it finds new is the walk's no more. Until that has its own place, the
	// marks stay behind all of it.
	place := ps.del.reserve(w.floor)
	var newest int64
	var failed error
	err := w.run(reading, func(s step) error {
		if s.restart && w.order == noOrder {
			return errNoOrder
		}
		for i := range s.entries {
			newest = max(newest, s.entries[i].Timestamp)
		}
		failed = t.batcher.page(ctx, work, s.entries, w.began.Unix())
		return failed
	})
	ps.del.count(func(s *Summary) { s.Pages += w.pages })
	if failed == nil {
		failed = t.batcher.flush(ctx, work)
	}
	if failed != nil {
		return failed
	}
	ps.del.finish(place)
	switch t.order = w.order; {
	case err == nil:
		t.head = max(t.head, min(newest, w.began.Unix()))
		t.owed.Add(-1)
	case t.order == noOrder:
		t.stop()
		t.owed.Add(-1)
	case reading.Err() == nil:
		ps.p.log.Warn("tail beside a pass not read, the pass goes on", "err", err)
	}
	return nil
}
