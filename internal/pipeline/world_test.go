package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// destination is a destination in memory.
type destination struct {
	delay time.Duration
	turns *rate.Limiter // of calls; nil: no limit
	// put may answer in the place of the destination: it calls accept for what it takes. n
	// counts calls from 1.
	put func(ctx context.Context, n int, entries []audit.Entry) ([]audit.Verdict, error)

	mu       sync.Mutex
	accepted map[string]int
	events   map[string]audit.Entry
	calls    int
	flying   int
	most     int // calls in flight at once
	times    []time.Time
}

func newDestination() *destination {
	return &destination{accepted: map[string]int{}, events: map[string]audit.Entry{}}
}

func (s *destination) Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	if s.turns != nil {
		if err := s.turns.Wait(ctx); err != nil {
			return make([]audit.Verdict, len(entries)), err
		}
	}
	s.mu.Lock()
	s.calls++
	s.flying++
	s.most = max(s.most, s.flying)
	s.times = append(s.times, time.Now())
	n := s.calls
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.flying--
		s.mu.Unlock()
	}()
	if s.delay > 0 {
		if err := sleep(ctx, s.delay); err != nil {
			return make([]audit.Verdict, len(entries)), err
		}
	}
	if s.put != nil {
		return s.put(ctx, n, entries)
	}
	return s.accept(entries), nil
}

func (s *destination) accept(entries []audit.Entry) []audit.Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	verdicts := make([]audit.Verdict, len(entries))
	for i, e := range entries {
		verdicts[i].Status = audit.Accepted
		s.accepted[e.ID]++
		s.events[e.ID] = e
	}
	return verdicts
}

func (s *destination) got(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted[id]
}

func (s *destination) ids() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.accepted))
}

func (s *destination) putCalls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// down is a destination that answers nothing.
func down(_ context.Context, _ int, entries []audit.Entry) ([]audit.Verdict, error) {
	return make([]audit.Verdict, len(entries)), fmt.Errorf("503 Service Unavailable")
}

// farFuture is the second that a walk's probe asks for: 2100-01-01.
const farFuture = 4102444800

// What a delivery allows itself; tests of how soon and how often it puts go by them.
const (
	firstBackoff = 100 * time.Millisecond // before a batch is put again
	maxProbe     = time.Second            // between two probes of a destination that is down
	maxFailed    = 16                     // failed calls for deferred entries in a row
)

// sleep waits, or returns early with the context's cause.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// world is a relay between a Kong, a store and a destination.
type world struct {
	t           testing.TB
	kong        *kong
	store       *store
	destination *destination
	opts        Options
	logs        *logs
	p           *Pipeline
}

type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(msg string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), msg)
}

func newWorld(t testing.TB, k *kong, change ...func(*Options)) *world {
	w := &world{t: t, kong: k, store: newStore(), destination: newDestination(), logs: &logs{}}
	w.opts = Options{PageSize: 10, Destination: w.destination, Source: k, Logger: slog.New(slog.NewTextHandler(w.logs, nil))}
	for _, f := range change {
		f(&w.opts)
	}
	w.restart()
	return w
}

// restart is a new process on the same store.
func (w *world) restart() {
	h := &handle{store: w.store}
	w.opts.Ledger, w.opts.Marks, w.opts.Undelivered, w.opts.OwnReads, w.opts.Lease = h, h, h, h, h.keeper()
	w.p = New(w.opts)
}

func (w *world) run(req Request) (Summary, error) {
	w.t.Helper()
	return w.p.Run(context.Background(), req)
}

// pass makes a pass that must be complete.
func (w *world) pass(req Request) Summary {
	w.t.Helper()
	s, err := w.run(req)
	if err != nil {
		w.t.Fatalf("%s: %v", req.Kind, err)
	}
	if !s.Complete || s.Failed != 0 || s.Left != "" {
		w.t.Fatalf("%s is not complete: %+v", req.Kind, s)
	}
	return s
}

// allOnce checks that the destination has every row of the log, once.
func (w *world) allOnce() {
	w.t.Helper()
	for _, e := range w.kong.all() {
		if n := w.destination.got(e.ID); n != 1 {
			w.t.Errorf("row %s of %d was delivered %d times", e.ID, e.Timestamp, n)
		}
	}
}

// now is Kong's clock, Unix seconds.
func (w *world) now() int64 { return w.kong.clock().Unix() }

func (w *world) advance(d time.Duration) {
	if err := sleep(context.Background(), d); err != nil {
		w.t.Fatal(err)
	}
}
