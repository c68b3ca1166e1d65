package pipeline

import (
	"context"
	"errors"
	"sync"

	"github.com/kong-cloudtrail/relay/internal/delivery"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// tailWorkers is the number of batches of a tail beside a walk that are put at once.
const tailWorkers = 2

// ErrUnordered is returned for a tail beside a reconcile of a log without order,
// which only a whole pass can read.
var ErrUnordered = errors.New("rows have no order: the tail must wait for the reconcile under way")

// beside is what a pass offers to tails while its walk is under way, so that a
// trigger does not wait for the pass's end. Such tails move no mark: what lies
// between is the walk's to read.
type beside struct {
	fail context.CancelCauseFunc // ends the pass

	ready chan struct{} // closed once the walk has found its order, or has ended
	once  sync.Once     // for ready

	running sync.WaitGroup // tails; grows only while the pipeline offers the pass

	tailing sync.Mutex // held by the tail that reads
	head    int64      // newest second that a tail has read; guarded by tailing

	mu    sync.Mutex
	order walk.Order // of the walk, then of the last tail
	pages int        // that tails have read
	ended bool
	next  int
	stops map[int]context.CancelCauseFunc // end the tails under way
	err   error                           // of a tail that failed the pass
}

// offer makes a pass known as the one beside which tails can be made; nil ends that.
func (p *Pipeline) offer(ps *pass) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.main = ps
}

// accept returns the pass beside which a tail can be made, or nil. Whoever gets one
// must call running.Done.
func (p *Pipeline) accept() *pass {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.main != nil {
		p.main.beside.running.Add(1)
	}
	return p.main
}

// allow lets tails begin, once the walk has found its order.
func (b *beside) allow(o walk.Order) {
	b.once.Do(func() {
		b.mu.Lock()
		b.order = o
		b.mu.Unlock()
		close(b.ready)
	})
}

// end waits for the tails under way, and tells the waiting ones that there is
// nothing to be beside of. If why is not nil, the pass has failed, and the tails
// under way are stopped. It returns the error with which a tail failed the pass.
func (b *beside) end(why error) error {
	b.mu.Lock()
	b.ended = true
	if why != nil {
		for _, stop := range b.stops {
			stop(why)
		}
	}
	b.mu.Unlock()
	b.once.Do(func() { close(b.ready) })
	b.running.Wait()
	return b.err
}

// tailBeside makes a tail beside the walk of the pass. made is false if the pass
// ended before it could.
func (ps *pass) tailBeside(ctx context.Context, req *Request) (sum Summary, made bool, err error) {
	b := &ps.beside
	sum = Summary{Kind: Tail, Order: walk.Unknown.String(), Beside: true}
	select {
	case <-b.ready:
	case <-ctx.Done():
		return sum, true, context.Cause(ctx)
	}
	work, cancelWork := ps.p.workContext(ctx)
	defer cancelWork()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	order, leave, ok := b.enter(stop)
	if !ok {
		return sum, false, nil
	}
	defer leave()
	sum.Order = order.String()
	if order == walk.Unordered {
		return sum, true, ErrUnordered
	}
	pool, ctx := ps.del.Workers(ctx, ps.p.opts.UrgentDestination, tailWorkers, ps.p.opts.BatchBytes)
	readErr, err := ps.readTail(ctx, work, pool, &sum)
	if err == nil && readErr == nil {
		req.hasRead()
	}
	if waitErr := pool.Wait(); err == nil || waitErr != nil && errors.Is(err, context.Canceled) {
		err = waitErr
	}
	if err != nil {
		b.failed(err)
		return sum, true, err
	}
	sum.Complete = readErr == nil
	return sum, true, readErr
}

// enter notes a tail, which stop ends. ok is false if the pass has ended.
func (b *beside) enter(stop context.CancelCauseFunc) (order walk.Order, leave func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return walk.Unknown, nil, false
	}
	n := b.next
	b.next++
	if b.stops == nil {
		b.stops = map[int]context.CancelCauseFunc{}
	}
	b.stops[n] = stop
	return b.order, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.stops, n)
	}, true
}

// failed ends the pass because a tail could not deliver.
func (b *beside) failed(err error) {
	b.mu.Lock()
	if b.err == nil {
		b.err = err
	}
	b.mu.Unlock()
	b.fail(err)
}

// pagesRead returns how many pages tails have read.
func (b *beside) pagesRead() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pages
}

// readTail reads the newest rows and hands over what is new. A failure to read is
// readErr: the walk meets the same trouble, and goes on as long as it can. Any other
// failure is the pass's as well.
func (ps *pass) readTail(ctx, work context.Context, pool *delivery.Workers, sum *Summary) (readErr, err error) {
	b, p := &ps.beside, ps.p
	b.tailing.Lock()
	defer b.tailing.Unlock()
	w := p.reader.Walk()
	b.mu.Lock()
	w.ReadIn(b.order)
	b.mu.Unlock()
	if b.head == 0 {
		b.head = max(ps.marks.Cursor, ps.walk.Began().Unix()-wideLookback)
	}
	floor := max(p.tailFloor(b.head), p.opts.StartAt)
	// Entries that the tail takes into flight are skipped by the walk. Until their
	// batches exist, this place keeps the marks below them.
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
		err = pool.Add(ctx, work, s.Entries, w.Began().Unix())
		return err
	})
	if err == nil {
		err = pool.Flush(ctx, work)
	}
	if err == nil {
		finish()
	}
	pages := w.Position().Pages
	sum.Pages, sum.Order = pages, w.Order().String()
	b.mu.Lock()
	b.order = w.Order()
	b.pages += pages
	b.mu.Unlock()
	if err == nil && readErr == nil {
		b.head = max(b.head, min(newest, w.Began().Unix()))
	}
	if err != nil {
		return nil, err
	}
	return readErr, nil
}
