package pipeline

import (
	"context"
	"errors"
	"sync"

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

	tailing sync.Mutex // one tail at a time

	mu    sync.Mutex
	order walk.Order // of the walk, then of the last tail
	ended bool
	stop  context.CancelCauseFunc // ends the tail under way
	err   error                   // of a tail that failed the pass
	head  int64                   // newest second that a tail has read
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
	if why != nil && b.stop != nil {
		b.stop(why)
	}
	b.mu.Unlock()
	b.once.Do(func() { close(b.ready) })
	b.running.Wait()
	return b.err
}

// tailBeside makes a tail beside the walk of the pass. made is false if the pass
// ended before it could.
func (ps *pass) tailBeside(ctx context.Context) (sum Summary, made bool, err error) {
	b := &ps.beside
	sum = Summary{Kind: Tail, Order: walk.Unknown.String(), Beside: true}
	select {
	case <-b.ready:
	case <-ctx.Done():
		return sum, true, context.Cause(ctx)
	}
	b.tailing.Lock()
	defer b.tailing.Unlock()
	work, cancelWork := ps.p.workContext(ctx)
	defer cancelWork()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	b.mu.Lock()
	order, ended := b.order, b.ended
	b.stop = stop
	b.mu.Unlock()
	if ended {
		return sum, false, nil
	}
	sum.Order = order.String()
	if order == walk.Unordered {
		return sum, true, ErrUnordered
	}
	readErr, err := ps.tail(ctx, work, order, &sum)
	b.mu.Lock()
	b.stop = nil
	if b.err == nil {
		b.err = err
	}
	b.mu.Unlock()
	if err != nil {
		b.fail(err)
		return sum, true, err
	}
	sum.Complete = readErr == nil
	return sum, true, readErr
}

// tail reads the newest rows and delivers what is new. A failure to read is
// readErr: the walk meets the same trouble, and goes on as long as it can. Any other
// failure is the pass's as well.
func (ps *pass) tail(ctx, work context.Context, order walk.Order, sum *Summary) (readErr, err error) {
	b, p := &ps.beside, ps.p
	pool, ctx := newWorkers(ctx, ps.del, p.opts.UrgentDestination, tailWorkers, p.opts.BatchBytes)
	w := p.reader.Walk()
	w.ReadIn(order)
	if b.head == 0 {
		b.head = max(ps.marks.Cursor, ps.walk.Began().Unix()-wideLookback)
	}
	floor := max(p.tailFloor(b.head), p.opts.StartAt)
	// Entries that the tail takes into flight are skipped by the walk. Until their
	// batches exist, this slot keeps the marks below them.
	slot := ps.del.reserve(floor)
	batches := batcher{ps: ps, workers: pool}
	var newest int64
	readErr = w.Run(ctx, walk.Bounds{Floor: floor, RestartFloor: floor}, func(s walk.Step) error {
		if s.Restart && s.Order == walk.Unordered {
			return ErrUnordered
		}
		for i := range s.Entries {
			newest = max(newest, s.Entries[i].Timestamp)
		}
		err = batches.page(ctx, work, s.Entries, w.Began().Unix())
		return err
	})
	if err == nil {
		err = batches.flush(ctx, work)
	}
	if err == nil {
		ps.del.finish(slot)
	}
	if waitErr := pool.wait(); err == nil || waitErr != nil && errors.Is(err, context.Canceled) {
		err = waitErr
	}
	ps.del.count(func(s *Summary) { s.Pages += w.Position().Pages })
	sum.Pages, sum.Order = w.Position().Pages, w.Order().String()
	b.mu.Lock()
	b.order = w.Order()
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if readErr == nil {
		b.head = max(b.head, min(newest, w.Began().Unix()))
	}
	return readErr, nil
}
