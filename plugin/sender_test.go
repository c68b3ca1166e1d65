package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// bell is a target that remembers its rings.
type bell struct {
	mu     sync.Mutex
	rings  []ring
	err    func(n int) error // of the n-th ring, from 1 on
	takes  time.Duration
	closed int
}

type ring struct {
	at  time.Time
	ids []string
	err error
}

func (b *bell) Notify(ctx context.Context, ids []string) error {
	at := time.Now()
	select {
	case <-time.After(b.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r := ring{at: at, ids: slices.Clone(ids)}
	if b.err != nil {
		r.err = b.err(len(b.rings) + 1)
	}
	b.rings = append(b.rings, r)
	return r.err
}

func (b *bell) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed++
}

// noted are the ids of the rings that succeeded.
func (b *bell) noted() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for _, r := range b.rings {
		if r.err == nil {
			ids = append(ids, r.ids...)
		}
	}
	return ids
}

func (b *bell) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.rings)
}

func (b *bell) senders() *senders {
	return newSenders(func(settings) (target, error) { return b, nil }, slog.New(slog.DiscardHandler))
}

var testSettings = settings{relayURL: "http://relay", minInterval: 100 * time.Millisecond, queueSize: 10_000}

// pass lets d pass on the clock of a synctest bubble.
func pass(d time.Duration) { <-time.After(d) }

func numbers(from, to int) []string {
	var ids []string
	for i := from; i < to; i++ {
		ids = append(ids, strconv.Itoa(i))
	}
	return ids
}

func TestSenderCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{takes: time.Millisecond}
		a := b.senders()
		start := time.Now()
		for i := range 1000 { // a burst of one second
			a.ring(testSettings, strconv.Itoa(i))
			pass(time.Millisecond)
		}
		pass(time.Second)
		synctest.Wait()
		if got := b.noted(); !slices.Equal(got, numbers(0, 1000)) {
			t.Errorf("%d ids were noted, or out of order", len(got))
		}
		if n := b.count(); n < 10 || n > 12 {
			t.Errorf("%d rings", n)
		}
		if at := b.rings[0].at.Sub(start); at != 0 {
			t.Errorf("the first ring came after %v", at)
		}
		for i := 1; i < len(b.rings); i++ {
			if d := b.rings[i].at.Sub(b.rings[i-1].at); d < testSettings.minInterval {
				t.Errorf("rings %d and %d are %v apart", i, i+1, d)
			}
		}
		a.close(t.Context())
	})
}

func TestSenderSplitsWhatOneTriggerCannotCarry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{takes: time.Millisecond}
		a := b.senders()
		var want []string
		for i := range 5000 {
			want = append(want, fmt.Sprintf("%032d", i))
			a.ring(testSettings, want[i])
		}
		pass(time.Second)
		synctest.Wait()
		if !slices.Equal(b.noted(), want) {
			t.Errorf("%d ids were noted", len(b.noted()))
		}
		for i, r := range b.rings {
			if trigger.Fit(r.ids) != len(r.ids) {
				t.Errorf("ring %d has %d ids", i+1, len(r.ids))
			}
		}
		a.close(t.Context())
	})
}

func TestSenderLooksNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{}
		a := b.senders()
		a.ring(testSettings, "")
		synctest.Wait()
		a.ring(testSettings, "")
		a.ring(testSettings, "")
		pass(time.Second)
		synctest.Wait()
		if b.count() != 2 || len(b.noted()) != 0 {
			t.Errorf("rings %v", b.rings)
		}
		a.close(t.Context())
	})
}

// looks are the rings that succeeded without ids.
func (b *bell) looks() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, r := range b.rings {
		if r.err == nil && len(r.ids) == 0 {
			n++
		}
	}
	return n
}

// The relay stops looking when the ids of a ring have shown up, so an event
// without one has a ring of its own, however many ids there are.
func TestSenderLooksBesideIDs(t *testing.T) {
	for name, last := range map[string]int{"after few ids": 1, "while ids keep coming": 1000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bell{takes: time.Millisecond}
				a := b.senders()
				a.ring(testSettings, "0")
				synctest.Wait()
				for i := range last {
					a.ring(testSettings, strconv.Itoa(i+1))
					if i == 0 {
						a.ring(testSettings, "")
						a.ring(testSettings, "")
					}
					pass(time.Millisecond)
				}
				pass(time.Second)
				synctest.Wait()
				if !slices.Equal(b.noted(), numbers(0, last+1)) || b.looks() != 1 {
					t.Fatalf("%d ids were noted, %d looks", len(b.noted()), b.looks())
				}
				if ids := b.rings[1].ids; len(ids) == 0 || len(b.rings[2].ids) > 0 {
					t.Errorf("the look is not the ring after the ids: %v", b.rings)
				}
				if d := b.rings[2].at.Sub(b.rings[1].at); d < testSettings.minInterval {
					t.Errorf("the look came %v after the ids", d)
				}
				a.close(t.Context())
			})
		})
	}
}

// What a failed ring carried is looked for only as far as it found no room.
func TestSenderLooksForWhatHasNoRoom(t *testing.T) {
	for name, test := range map[string]struct{ queue, ids, looks int }{
		"room": {10, 2, 0}, "no room": {1, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bell{takes: time.Second, err: func(n int) error {
					if n == 1 {
						return errors.New("down")
					}
					return nil
				}}
				a := b.senders()
				set := testSettings
				set.queueSize = test.queue
				a.ring(set, "0")
				synctest.Wait() // on its way, and will fail
				a.ring(set, "1")
				pass(time.Minute)
				synctest.Wait()
				if ids := b.noted(); b.looks() != test.looks || ids[0] != "0" || len(ids) != test.ids-test.looks {
					t.Errorf("noted %q, and %d looks", ids, b.looks())
				}
				a.close(t.Context())
			})
		})
	}
}

// A queue that is full costs ids, never the last ring.
func TestSenderIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{takes: time.Second}
		a := b.senders()
		set := testSettings
		set.queueSize = 10
		for i := range 1000 {
			a.ring(set, strconv.Itoa(i))
			if i == 0 {
				synctest.Wait() // the first one is on its way
			}
		}
		a.mu.Lock()
		s := a.bySet[set]
		if len(s.queue) != 10 || len(s.flight) != 1 {
			t.Errorf("%d wait and %d are on their way", len(s.queue), len(s.flight))
		}
		a.mu.Unlock()
		added := time.Now()
		pass(time.Minute)
		synctest.Wait()
		if got := b.noted(); !slices.Equal(got, numbers(0, 11)) {
			t.Errorf("noted %q", got)
		}
		if last := b.rings[b.count()-1]; last.at.Before(added) || b.looks() != 1 {
			t.Errorf("nobody looks for what found no room: %d looks", b.looks())
		}
		a.close(t.Context())
	})
}

func TestSenderWaitsForARelayThatReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		b := &bell{err: func(int) error {
			if !up.Load() {
				return errors.New("connection refused")
			}
			return nil
		}}
		a := b.senders()
		reports := 0
		for i := range 600 { // a minute
			if a.ring(testSettings, strconv.Itoa(i)) != "" {
				reports++
			}
			pass(100 * time.Millisecond)
		}
		synctest.Wait()
		if n := b.count(); n > 25 {
			t.Errorf("%d rings in a minute for a relay that is down", n)
		}
		if reports != 1 {
			t.Errorf("%d lines in Kong's log in a minute", reports)
		}
		up.Store(true)
		pass(maxPause)
		synctest.Wait()
		if !slices.Equal(b.noted(), numbers(0, 600)) {
			t.Errorf("%d ids were noted", len(b.noted()))
		}
		if text := a.ring(testSettings, "600"); text != "" {
			t.Errorf("reported after it had healed: %s", text)
		}
		a.close(t.Context())
	})
}

func TestSenderDropsWhatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{err: func(n int) error {
			if n == 1 {
				return fmt.Errorf("ringing: %w", &trigger.RefusedError{Status: 409})
			}
			return nil
		}}
		a := b.senders()
		a.ring(testSettings, "1")
		pass(time.Minute / 2)
		synctest.Wait()
		if b.count() != 1 {
			t.Errorf("%d rings for an id that was refused for good", b.count())
		}
		if text := a.ring(testSettings, "2"); text == "" {
			t.Error("nobody was told")
		}
		synctest.Wait()
		if !slices.Equal(b.noted(), []string{"2"}) {
			t.Errorf("noted %q", b.noted())
		}
		a.close(t.Context())
	})
}

func TestReportsAreBounded(t *testing.T) {
	a := (&bell{}).senders()
	for i := range 10_000 {
		a.report(strconv.Itoa(i), [32]byte{})
	}
	if len(a.reports) > maxReports {
		t.Errorf("%d are kept", len(a.reports))
	}
}
