package pipeline

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// patience holds writes until their time has come.
type patience struct {
	each time.Duration // that each waits

	mu    sync.Mutex
	first map[string]time.Time
	joins int
}

func (p *patience) Hold(e *audit.Entry) bool { return e.IsWrite() && e.Changes == "" }

func (p *patience) Join(_ context.Context, w audit.Writes) (ready []audit.Entry, again time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.joins++
	for _, e := range w.Entries {
		if p.first[e.ID].IsZero() {
			p.first[e.ID] = time.Now()
		}
		if at := p.first[e.ID].Add(p.each); at.After(time.Now()) {
			again = at
			continue
		}
		e.Changes = "{}"
		ready = append(ready, e)
	}
	return ready, again, nil
}

// A write that waits keeps nothing else waiting, keeps the marks behind it, and is
// delivered once by a later pass, of whichever process.
func TestHeldWrites(t *testing.T) {
	ways(t, func(t *testing.T, newKong func() *kong) {
		synctest.Test(t, func(t *testing.T) {
			p := &patience{each: 2 * time.Second, first: map[string]time.Time{}}
			w := newWorld(t, newKong(), func(o *Options) { o.Changes, o.PageSize = p, 100 })
			w.kong.add(span(w.now()-500, 60, 5)...)
			w.pass(Request{Kind: audit.Reconcile})
			now := w.now()
			w.kong.addEntry(audit.Entry{RequestID: "write", Timestamp: now, Method: "PATCH", Path: "/routes/a", Status: 200})
			read := w.kong.add(now)[0]
			w.advance(time.Second)
			later := w.kong.add(w.now())[0]
			var again time.Time
			tail := Request{Kind: audit.Tail, OnHeld: func(at time.Time) { again = at }}
			w.pass(tail)
			if w.destination.got(read) != 1 || w.destination.got(later) != 1 || w.destination.got("write") != 0 {
				t.Fatalf("delivered: read %d, later one %d, write %d", w.destination.got(read), w.destination.got(later), w.destination.got("write"))
			}
			if wait := time.Until(again); wait <= 0 || wait > 2*time.Second {
				t.Errorf("the next tail is asked for in %s", wait)
			}
			if m := w.store.saved(); m.Cursor >= now {
				t.Errorf("the cursor is at %d, past the write at %d", m.Cursor, now)
			}
			w.restart()
			w.advance(time.Until(again))
			w.pass(tail)
			if w.destination.got("write") != 1 || w.destination.events["write"].Changes != "{}" {
				t.Errorf("the write was delivered %d times: %+v", w.destination.got("write"), w.destination.events["write"])
			}
			w.pass(Request{Kind: audit.Reconcile, Full: true})
			w.allOnce()

			// A reconcile waits for its writes, and a tail meanwhile does not put them as well.
			w.kong.addEntry(audit.Entry{RequestID: "another", Timestamp: w.now(), Method: "POST", Path: "/routes", Status: 201})
			begin := time.Now()
			done := make(chan struct{})
			go func() {
				defer close(done)
				w.advance(time.Second)
				_, _ = w.run(Request{Kind: audit.Tail})
			}()
			w.pass(Request{Kind: audit.Reconcile})
			if took := time.Since(begin); took < 2*time.Second {
				t.Errorf("the reconcile ended after %s", took)
			}
			<-done
			w.pass(Request{Kind: audit.Tail})
			w.allOnce()
		})
	})
}

// A backlog of writes is joined while it is read, not kept in memory.
func TestHeldWritesDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &patience{first: map[string]time.Time{}}
		most := 0
		w := newWorld(t, oldest(), func(o *Options) { o.Changes, o.PageSize = joins{p, &most}, 100 })
		for i := range 3000 {
			w.kong.addEntry(audit.Entry{RequestID: "w" + time.Duration(i).String(), Timestamp: w.now() - 9000 + int64(i), Method: "PUT", Path: "/routes/a", Status: 200})
		}
		w.pass(Request{Kind: audit.Reconcile})
		w.allOnce()
		if most > joinEntries+100 {
			t.Errorf("%d writes were held at once", most)
		}
	})
}

// joins notes how many writes are joined at once.
type joins struct {
	*patience

	most *int
}

func (j joins) Join(ctx context.Context, w audit.Writes) ([]audit.Entry, time.Time, error) {
	*j.most = max(*j.most, len(w.Entries))
	return j.patience.Join(ctx, w)
}
