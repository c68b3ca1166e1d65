package pipeline

import (
	"context"
	"errors"
	"sync"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// tailWorkers is the number of batches of a concurrent tail that are put at once.
const tailWorkers = 2

// ErrUnordered is returned for a tail during a reconcile of a log without order, which
// only a whole pass can read.
var ErrUnordered = errors.New("rows have no order: the tail must wait for the reconcile under way")

// concurrentTails are the tails that are made while the walk of a pass is under way, so
// that a trigger does not wait for the end of the pass. They move no mark: the walk
// still has to read what lies between the marks and them.
type concurrentTails struct {
	fail context.CancelCauseFunc // ends the pass

	begun chan struct{} // closed once the walk has found its order, or the pass has ended
	once  sync.Once     // for begun

	stopped context.Context //nolint:containedctx // as long as the pass, which it ends for its tails
	stop    context.CancelCauseFunc

	running sync.WaitGroup // tails; added to only while the pass is the pipeline's current one

	reading sync.Mutex // held by the tail that reads
	head    int64      // newest second that a tail has read; guarded by reading

	mu     sync.Mutex
	order  walk.Order // of the walk, then of the last tail
	cursor int64      // of the marks, when tails could begin
	pages  int        // that tails have read
	closed bool
	err    error // with which a tail failed the pass
}

// init makes the value ready for use. fail ends the pass.
func (t *concurrentTails) init(fail context.CancelCauseFunc) {
	t.fail, t.begun = fail, make(chan struct{})
	t.stopped, t.stop = context.WithCancelCause(context.Background())
}

// setCurrent sets the pass that tails can join; nil for none.
func (p *Pipeline) setCurrent(ps *pass) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = ps
}

// join returns the pass that a tail can join, or nil. The caller must call
// tails.running.Done on the pass that is returned.
func (p *Pipeline) join() *pass {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil {
		p.current.tails.running.Add(1)
	}
	return p.current
}

// begin lets tails read from a cursor, once the walk has found its order.
func (t *concurrentTails) begin(o walk.Order, cursor int64) {
	t.once.Do(func() {
		t.mu.Lock()
		t.order, t.cursor = o, cursor
		t.mu.Unlock()
		close(t.begun)
	})
}

// close turns away tails that have not begun to read, and waits for the others. A
// non-nil why is the reason why the pass failed; it stops the tails. close returns the
// error of the tail that failed the pass, if one did.
func (t *concurrentTails) close(why error) error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	if why != nil {
		t.stop(why)
	}
	t.once.Do(func() { close(t.begun) })
	t.running.Wait()
	t.stop(nil)
	return t.err
}

// concurrentTail makes a tail while the pass is under way. made is false if the pass
// ended before the tail could begin.
func (ps *pass) concurrentTail(ctx context.Context, req *Request) (sum Summary, made bool, err error) {
	t := &ps.tails
	sum = Summary{Kind: audit.Tail, Order: walk.Unknown.String(), Beside: true}
	select {
	case <-t.begun:
	case <-ctx.Done():
		return sum, true, context.Cause(ctx)
	}
	work, cancelWork := ps.p.workContext(ctx)
	defer cancelWork()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(t.stopped, func() { stop(context.Cause(t.stopped)) })()
	t.mu.Lock()
	order, cursor, closed := t.order, t.cursor, t.closed
	t.mu.Unlock()
	if closed {
		return sum, false, nil
	}
	sum.Order = order.String()
	if order == walk.Unordered {
		return sum, true, ErrUnordered
	}
	pool, ctx := ps.del.NewWorkers(ctx, work, ps.p.opts.UrgentDestination, tailWorkers, ps.p.opts.BatchBytes)
	readErr, err := ps.readTail(ctx, pool, &sum)
	if err == nil && readErr == nil {
		req.hasRead()
		err = ps.joinTail(ctx, pool, req, audit.Writes{Floor: max(1, cursor-wideLookback), Through: ps.walk.KongTime().Unix()})
	}
	if err = firstFailure(err, pool.Wait()); err != nil {
		t.failPass(err)
		return sum, true, err
	}
	sum.Complete = readErr == nil
	return sum, true, readErr
}

// failPass ends the pass because a tail could not deliver.
func (t *concurrentTails) failPass(err error) {
	t.mu.Lock()
	if t.err == nil {
		t.err = err
	}
	t.mu.Unlock()
	t.fail(err)
}

// pagesRead returns how many pages tails have read.
func (t *concurrentTails) pagesRead() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pages
}

// readTail reads the newest rows and hands the new ones to a pool. readErr is a failure
// to read, which does not fail the pass: its walk meets the same failure and retries
// longer. err is any other failure, which fails the pass as well.
func (ps *pass) readTail(ctx context.Context, pool *delivery.Workers, sum *Summary) (readErr, err error) {
	t, p := &ps.tails, ps.p
	t.reading.Lock()
	defer t.reading.Unlock()
	w := p.reader.Walk()
	t.mu.Lock()
	w.ReadIn(t.order)
	cursor := t.cursor
	t.mu.Unlock()
	if t.head == 0 {
		t.head = max(cursor, ps.walk.KongTime().Unix()-wideLookback)
	}
	floor := max(p.tailFloor(t.head), p.opts.StartAt)
	// The walk skips entries that the tail has in flight. Until their batches exist, this
	// slot keeps the marks below them.
	finish := ps.del.Reserve(floor)
	var newest int64 // by timestamps that Kong gave
	readErr = w.Run(ctx, walk.Bounds{Floor: floor, RestartFloor: floor}, func(s walk.Step) error {
		if s.Restart && s.Order == walk.Unordered {
			return ErrUnordered
		}
		for i := range s.Entries {
			if !s.Entries[i].TimestampGuessed {
				newest = max(newest, s.Entries[i].Timestamp)
			}
		}
		err = pool.Add(ctx, s.Entries, w.Now().Unix())
		return err
	})
	if err == nil {
		err = pool.Flush(ctx)
	}
	if err == nil {
		finish()
	}
	pages := w.Position().Pages
	sum.Pages, sum.Order = pages, w.Order().String()
	t.mu.Lock()
	t.order = w.Order()
	t.pages += pages
	t.mu.Unlock()
	if err == nil && readErr == nil {
		t.head = max(t.head, min(newest, w.KongTime().Unix()))
	}
	if err != nil {
		return nil, err
	}
	return readErr, nil
}
