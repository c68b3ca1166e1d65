package runner

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/leaktest"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// ledger is what a runner needs of a ledger, in memory.
type ledger struct {
	mu        sync.Mutex
	list      []audit.Announcement
	own       map[string]bool
	delivered map[string]bool
	marks     audit.Marks
	fail      error         // that Unannounce fails with
	reading   chan struct{} // Announced waits for it, once it has read the list; may be nil
}

func (l *ledger) Announced(context.Context) ([]audit.Announcement, error) {
	l.mu.Lock()
	list, reading := slices.Clone(l.list), l.reading
	l.mu.Unlock()
	if reading != nil {
		<-reading
	}
	return list, nil
}

func (l *ledger) Announce(_ context.Context, ids []string, at time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.list = append(l.list, audit.Announcement{ID: id, At: at})
	}
	return nil
}

func (l *ledger) Unannounce(_ context.Context, ids []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil && len(ids) > 0 {
		return l.fail
	}
	l.list = slices.DeleteFunc(l.list, func(a audit.Announcement) bool { return slices.Contains(ids, a.ID) })
	return nil
}

func (l *ledger) Lookup(_ context.Context, entries []audit.Entry) ([]audit.Outcome, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]audit.Outcome, len(entries))
	for i := range entries {
		if l.delivered[entries[i].RequestID] {
			out[i] = audit.Delivered
		}
	}
	return out, nil
}

func (l *ledger) Record(context.Context, []audit.Record) error { return nil }

func (l *ledger) NoteOwnReads(context.Context, []string) error { return nil }

func (l *ledger) AreOwnReads(_ context.Context, ids []string) ([]bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	are := make([]bool, len(ids))
	for i, id := range ids {
		are[i] = l.own[id]
	}
	return are, nil
}

func (l *ledger) Marks(context.Context) (audit.Marks, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.marks, nil
}

func (l *ledger) LeaseLeft(context.Context) (time.Duration, error) { return 10 * time.Second, nil }

func (l *ledger) announced() []audit.Announcement {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// passes makes passes that show what the log has.
type passes struct {
	scheduler *announce.Scheduler
	do        func(ctx context.Context, req pipeline.Request) (pipeline.Summary, error) // may be nil

	mu    sync.Mutex
	log   []audit.Entry
	kinds []audit.PassKind
}

func (p *passes) Run(ctx context.Context, req pipeline.Request) (pipeline.Summary, error) {
	p.mu.Lock()
	p.kinds = append(p.kinds, req.Kind)
	log := slices.Clone(p.log)
	p.mu.Unlock()
	p.scheduler.Seen(log)
	if p.do != nil {
		return p.do(ctx, req)
	}
	return pipeline.Summary{Kind: req.Kind}, nil
}

func (p *passes) add(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, audit.Entry{RequestID: id})
}

func (p *passes) count(k audit.PassKind) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, kind := range p.kinds {
		if kind == k {
			n++
		}
	}
	return n
}

type world struct {
	*Runner
	ledger *ledger
	passes *passes
}

func newWorld(l *ledger) *world {
	s := announce.New(announce.Options{Debounce: 50 * time.Millisecond, Schedule: time.Hour})
	p := &passes{scheduler: s}
	return &world{ledger: l, passes: p, Runner: New(Options{
		Passes: p, Scheduler: s, Ledger: l, Schedule: time.Hour,
	})}
}

// run makes the runner run in the background; stop ends it.
func (w *world) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	}
}

func (w *world) notify(t *testing.T, ids ...string) {
	t.Helper()
	if err := w.Notify(t.Context(), ids, time.Now()); err != nil {
		t.Error(err)
	}
}

func TestATriggerBringsTails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&ledger{})
		defer w.run(t)()
		w.notify(t, "a")
		if list := w.ledger.announced(); len(list) != 1 {
			t.Errorf("the ledger's list is %v", list)
		}
		pause(300 * time.Millisecond)
		w.passes.add("a")
		pause(time.Minute)
		if n := w.passes.count(audit.Tail); n < 2 || n > 6 {
			t.Errorf("%d tails", n)
		}
		if list := w.ledger.announced(); len(list) != 0 {
			t.Errorf("the ledger's list is %v", list)
		}
	})
}

// A thousand requests in a second, whose rows Kong writes a tenth of a second later.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&ledger{})
		defer w.run(t)()
		for i := range 1000 {
			id := strconv.Itoa(i)
			time.AfterFunc(100*time.Millisecond, func() { w.passes.add(id) })
			w.notify(t, id)
			pause(time.Millisecond)
		}
		pause(time.Minute)
		if n := w.passes.count(audit.Tail); n > 20 {
			t.Errorf("%d tails", n)
		}
		if list := w.ledger.announced(); len(list) != 0 {
			t.Errorf("%d ids are still announced", len(list))
		}
	})
}

// The ledger's list is on its way when a trigger comes.
func TestATriggerWhileTheListIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&ledger{reading: make(chan struct{})})
		defer w.run(t)()
		w.notify(t, "a")
		close(w.ledger.reading)
		pause(time.Second)
		if n := w.passes.count(audit.Tail); n == 0 {
			t.Error("no tail")
		}
	})
}

func TestSeenIDsAreStruckOffOnceTheLedgerAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&ledger{fail: errors.New("i/o timeout")})
		w.passes.add("a")
		defer w.run(t)()
		if err := w.ledger.Announce(t.Context(), []string{"a"}, time.Now()); err != nil {
			t.Fatal(err)
		}
		pause(time.Minute)
		w.ledger.mu.Lock()
		w.ledger.fail = nil
		w.ledger.mu.Unlock()
		pause(2 * sweepEvery)
		if list := w.ledger.announced(); len(list) != 0 {
			t.Errorf("still announced: %v", list)
		}
	})
}

// Another relay noted an id and died before it polled.
func TestIDsOfARelayThatDiedAreLookedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&ledger{})
		defer w.run(t)()
		pause(3 * time.Second)
		if err := w.ledger.Announce(t.Context(), []string{"a"}, time.Now()); err != nil {
			t.Fatal(err)
		}
		pause(15 * time.Second)
		if n := w.passes.count(audit.Tail); n == 0 {
			t.Error("no tail within 15 s")
		}
	})
}

// Reads of this or of another relay are not worth a poll, although the other relay
// says so only after the trigger.
func TestOwnReadsTriggerNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&ledger{own: map[string]bool{"known": true}})
		defer w.run(t)()
		w.notify(t, "known")
		w.notify(t, "noted late")
		w.ledger.mu.Lock()
		w.ledger.own["noted late"] = true
		w.ledger.mu.Unlock()
		pause(time.Minute)
		if n := w.passes.count(audit.Tail); n != 0 {
			t.Errorf("%d tails", n)
		}
		if list := w.ledger.announced(); len(list) != 0 {
			t.Errorf("still announced: %v", list)
		}
	})
}

func TestWhatWasDeliveredIsNotAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&ledger{delivered: map[string]bool{"a": true}})
		fresh, err := w.Announce(t.Context(), []string{"a", "b"}, time.Now())
		if err != nil || !slices.Equal(fresh, []string{"b"}) || len(w.ledger.announced()) != 1 {
			t.Errorf("fresh %v, %v, list %v", fresh, err, w.ledger.announced())
		}
	})
}

// Relays on one ledger do not reconcile each for itself.
func TestAReconcileOfAnotherRelayCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now().Add(-20 * time.Minute)
		w := newWorld(&ledger{marks: audit.Marks{Cursor: 1, ReconciledThrough: began.Unix(), FullAt: began.Unix()}})
		w.opts.Scheduler.RequestReconcile(time.Now(), false)
		defer w.run(t)()
		pause(39 * time.Minute)
		if n := w.passes.count(audit.Reconcile); n != 0 {
			t.Errorf("%d reconciles", n)
		}
		pause(2 * time.Minute)
		if n := w.passes.count(audit.Reconcile); n != 1 {
			t.Errorf("%d reconciles an hour after the other relay's", n)
		}
	})
}

func TestRunUntilIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&ledger{})
		s := w.opts.Scheduler
		s.RequestReconcile(time.Now(), true)
		w.passes.add("a")
		w.notify(t, "a")
		if err := w.RunUntilIdle(t.Context(), time.Now().Add(time.Minute)); err != nil || w.passes.count(audit.Reconcile) != 1 {
			t.Errorf("%v, passes %v", err, w.passes.kinds)
		}
		broken := errors.New("broken")
		w.passes.do = func(context.Context, pipeline.Request) (pipeline.Summary, error) { return pipeline.Summary{}, broken }
		s.RequestTail(time.Now(), time.Now())
		if err := w.RunUntilIdle(t.Context(), time.Now().Add(time.Minute)); !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
	})
}

// A pass whose last calls outlast the deadline says itself how it ended: a Lambda function
// goes on with the rest of one that ran out of time.
func TestPassThatOutlastsTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&ledger{})
		w.passes.do = func(ctx context.Context, _ pipeline.Request) (pipeline.Summary, error) {
			<-ctx.Done()
			pause(time.Second)
			return pipeline.Summary{}, pipeline.ErrOutOfTime
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w.opts.Scheduler.RequestReconcile(time.Now(), true)
		if err := w.RunUntilIdle(ctx, time.Now().Add(time.Second)); !errors.Is(err, pipeline.ErrOutOfTime) {
			t.Errorf("ended with %v", err)
		}
	})
}

// pause lets time pass in a bubble.
func pause(d time.Duration) { <-time.After(d) }
