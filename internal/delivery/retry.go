package delivery

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	// maxGather is how long entries that are due to be put again wait for others to fill
	// their batch, while a pass still reads.
	maxGather = time.Second
	// maxEntryBackoff is the longest wait of an entry before it is put again.
	maxEntryBackoff = 2 * time.Second
)

// retryPool gathers entries without an outcome of calls that the destination
// answered, so that they are put again in full batches. Each entry counts towards
// the bytes in flight until it has an outcome.
type retryPool struct {
	wake chan struct{} // wakes the goroutine that empties the pool

	mu       sync.Mutex
	list     []waitingEntry // by when they are due
	emptying bool           // a goroutine empties the pool
	active   int            // batches that are being delivered
	draining bool           // no more batches come from the walk
}

// waitingEntry is an entry that is to be put again.
type waitingEntry struct {
	entry audit.Entry
	past  pastPuts
	due   time.Time
}

func (p *retryPool) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active++
}

func (p *retryPool) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active--
	p.signal()
}

// drain tells the pool not to wait for entries of batches that are still to come.
func (p *retryPool) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	p.signal()
}

func (p *retryPool) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// add puts entries into the pool.
func (p *retryPool) add(list []waitingEntry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, list...)
	slices.SortStableFunc(p.list, func(a, b waitingEntry) int { return a.due.Compare(b.due) })
	p.signal()
}

// start reports whether the caller has to empty the pool.
func (p *retryPool) start() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.emptying || len(p.list) == 0 {
		return false
	}
	p.emptying = true
	return true
}

// take removes entries that are due, as many as fit a batch. If list is empty and done is
// false, the caller sleeps for wait, or until wake fires, and calls take again. done means
// that the pool is empty and that the caller need not empty it any more.
func (p *retryPool) take(maxEntries, maxBytes int) (list []waitingEntry, wait time.Duration, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) == 0 {
		p.emptying = false
		return nil, 0, true
	}
	now := time.Now()
	n, size, full := 0, 0, false
	for ; n < len(p.list) && !p.list[n].due.After(now); n++ {
		size += p.list[n].entry.Size()
		if full = n == maxEntries || n > 0 && size > maxBytes; full {
			break
		}
	}
	full = full || n == maxEntries
	oldest := p.list[0].due
	switch {
	case full, n > 0 && (now.Sub(oldest) >= maxGather || p.draining && p.active == 0):
		list = slices.Clone(p.list[:n])
		p.list = slices.Delete(p.list, 0, n)
		return list, 0, false
	case n == 0:
		return nil, oldest.Sub(now), false
	case n < len(p.list):
		return nil, min(oldest.Add(maxGather).Sub(now), p.list[n].due.Sub(now)), false
	}
	return nil, oldest.Add(maxGather).Sub(now), false
}

// retry puts the entries that are left of an answered call into the retry pool, and
// defers those that have been tried for long enough.
func (w *Workers) retry(left *batch) error {
	late := *left
	late.entries, late.past = nil, nil
	list := make([]waitingEntry, 0, len(left.entries))
	now, spread := time.Now(), jitter(firstBackoff) // what failed together is put together
	for i, past := range left.past {
		e := left.entries[i]
		if now.Sub(past.firstPut) > w.d.opts.RetryFor {
			late.entries, late.past = append(late.entries, e), append(late.past, past)
			continue
		}
		w.d.detach(&e)
		backoff := min(spread<<min(past.puts-1, 10), maxEntryBackoff)
		list = append(list, waitingEntry{entry: e, past: past, due: now.Add(backoff)})
	}
	w.retries.add(list)
	if len(late.entries) == 0 {
		return nil
	}
	if first := late.past[0]; len(late.entries) > fewBatches && !w.d.gate.acceptedSince(first.firstPut) {
		return fmt.Errorf("%w for %s: %s: %s", ErrUnavailable, w.d.opts.RetryFor.Round(time.Millisecond), first.last.Code, first.last.Reason)
	}
	return w.deferEntries(&late)
}

// putRetries puts what is in the retry pool until the pool is empty, unless another
// goroutine does so.
func (w *Workers) putRetries(ctx context.Context) error {
	if !w.retries.start() {
		return nil
	}
	for {
		list, wait, done := w.retries.take(w.d.opts.BatchEntries, w.d.opts.BatchBytes)
		if done {
			return nil
		}
		if len(list) == 0 {
			if err := sleep(ctx, wait, w.retries.wake); err != nil {
				return err
			}
			continue
		}
		b := newBatch(nil, nil, w.d.opts.RetryFor)
		for _, e := range list {
			b.entries, b.past = append(b.entries, e.entry), append(b.past, e.past)
			if e.past.firstPut.Before(b.comparable) {
				b.comparable = e.past.firstPut
			}
		}
		w.retries.begin()
		if w.group.TryGo(w.delivering(ctx, b)) {
			continue
		}
		err := w.deliver(ctx, b)
		w.retries.end()
		if err != nil {
			return err
		}
	}
}

// sleep waits for some time, or until woken, which may be nil. It returns early with the
// context's cause.
func sleep(ctx context.Context, d time.Duration, woken <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-woken:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
