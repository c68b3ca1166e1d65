package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// recorder is a target that remembers its triggers.
type recorder struct {
	mu       sync.Mutex
	triggers []sent
	err      func(n int) error // of the n-th trigger, from 1 on
	takes    time.Duration
}

type sent struct {
	at  time.Time
	ids []string
	err error
}

func (b *recorder) Notify(ctx context.Context, ids []string) error {
	at := time.Now()
	select {
	case <-time.After(b.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r := sent{at: at, ids: slices.Clone(ids)}
	if b.err != nil {
		r.err = b.err(len(b.triggers) + 1)
	}
	b.triggers = append(b.triggers, r)
	return r.err
}

// noted returns the ids of the triggers that succeeded.
func (b *recorder) noted() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for _, r := range b.triggers {
		if r.err == nil {
			ids = append(ids, r.ids...)
		}
	}
	return ids
}

func (b *recorder) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.triggers)
}

func (b *recorder) senders() *senders {
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
		b := &recorder{takes: time.Millisecond}
		a := b.senders()
		start := time.Now()
		for i := range 1000 { // a burst of one second
			a.add(testSettings, strconv.Itoa(i))
			pass(time.Millisecond)
		}
		pass(time.Second)
		synctest.Wait()
		if got := b.noted(); !slices.Equal(got, numbers(0, 1000)) {
			t.Errorf("%d ids were noted, or out of order", len(got))
		}
		if n := b.count(); n < 10 || n > 12 {
			t.Errorf("%d triggers", n)
		}
		if at := b.triggers[0].at.Sub(start); at != 0 {
			t.Errorf("the first trigger came after %v", at)
		}
		for i := 1; i < len(b.triggers); i++ {
			if d := b.triggers[i].at.Sub(b.triggers[i-1].at); d < testSettings.minInterval {
				t.Errorf("triggers %d and %d are %v apart", i, i+1, d)
			}
		}
		a.close(t.Context())
	})
}

func TestSenderSplitsWhatOneTriggerCannotCarry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recorder{takes: time.Millisecond}
		a := b.senders()
		var want []string
		for i := range 5000 {
			want = append(want, fmt.Sprintf("%032d", i))
			a.add(testSettings, want[i])
		}
		pass(time.Second)
		synctest.Wait()
		if !slices.Equal(b.noted(), want) {
			t.Errorf("%d ids were noted", len(b.noted()))
		}
		for i, r := range b.triggers {
			if trigger.Fit(r.ids) != len(r.ids) {
				t.Errorf("trigger %d has %d ids", i+1, len(r.ids))
			}
		}
		a.close(t.Context())
	})
}

func TestSenderPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recorder{}
		a := b.senders()
		a.add(testSettings, "")
		synctest.Wait()
		a.add(testSettings, "")
		a.add(testSettings, "")
		pass(time.Second)
		synctest.Wait()
		if b.count() != 2 || len(b.noted()) != 0 {
			t.Errorf("triggers %v", b.triggers)
		}
		a.close(t.Context())
	})
}

// polls counts the triggers without ids that succeeded.
func (b *recorder) polls() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, r := range b.triggers {
		if r.err == nil && len(r.ids) == 0 {
			n++
		}
	}
	return n
}

// The relay stops polling when the ids of a trigger have shown up, so an event
// without an id gets a separate trigger, however many ids there are.
func TestSenderPollsBesideIDs(t *testing.T) {
	for name, last := range map[string]int{"after few ids": 1, "while ids keep coming": 1000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &recorder{takes: time.Millisecond}
				a := b.senders()
				a.add(testSettings, "0")
				synctest.Wait()
				for i := range last {
					a.add(testSettings, strconv.Itoa(i+1))
					if i == 0 {
						a.add(testSettings, "")
						a.add(testSettings, "")
					}
					pass(time.Millisecond)
				}
				pass(time.Second)
				synctest.Wait()
				if !slices.Equal(b.noted(), numbers(0, last+1)) || b.polls() != 1 {
					t.Fatalf("%d ids were noted, %d polls", len(b.noted()), b.polls())
				}
				if ids := b.triggers[1].ids; len(ids) == 0 || len(b.triggers[2].ids) > 0 {
					t.Errorf("the poll is not the trigger after the ids: %v", b.triggers)
				}
				if d := b.triggers[2].at.Sub(b.triggers[1].at); d < testSettings.minInterval {
					t.Errorf("the poll came %v after the ids", d)
				}
				a.close(t.Context())
			})
		})
	}
}

// After a failed trigger there is a poll only if some of its ids found no room.
func TestSenderPollsForWhatHasNoRoom(t *testing.T) {
	for name, test := range map[string]struct{ queue, ids, polls int }{
		"room": {10, 2, 0}, "no room": {1, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &recorder{takes: time.Second, err: func(n int) error {
					if n == 1 {
						return errors.New("down")
					}
					return nil
				}}
				a := b.senders()
				set := testSettings
				set.queueSize = test.queue
				a.add(set, "0")
				synctest.Wait() // on its way, and will fail
				a.add(set, "1")
				pass(time.Minute)
				synctest.Wait()
				if ids := b.noted(); b.polls() != test.polls || ids[0] != "0" || len(ids) != test.ids-test.polls {
					t.Errorf("noted %q, and %d polls", ids, b.polls())
				}
				a.close(t.Context())
			})
		})
	}
}

// A full queue costs ids, but never the last trigger.
func TestSenderIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recorder{takes: time.Second}
		a := b.senders()
		set := testSettings
		set.queueSize = 10
		for i := range 1000 {
			a.add(set, strconv.Itoa(i))
			if i == 0 {
				synctest.Wait() // the first one is on its way
			}
		}
		a.mu.Lock()
		s := a.bySet[set]
		if len(s.queue) != 10 || len(s.inFlight) != 1 {
			t.Errorf("%d wait and %d are in flight", len(s.queue), len(s.inFlight))
		}
		a.mu.Unlock()
		added := time.Now()
		pass(time.Minute)
		synctest.Wait()
		if got := b.noted(); !slices.Equal(got, numbers(0, 11)) {
			t.Errorf("noted %q", got)
		}
		if last := b.triggers[b.count()-1]; last.at.Before(added) || b.polls() != 1 {
			t.Errorf("no poll for what found no room: %d polls", b.polls())
		}
		a.close(t.Context())
	})
}

func TestSenderWaitsForARelayThatReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		b := &recorder{err: func(int) error {
			if !up.Load() {
				return errors.New("connection refused")
			}
			return nil
		}}
		a := b.senders()
		reports := 0
		for i := range 600 { // a minute
			line, _, outcome := a.add(testSettings, strconv.Itoa(i))
			if outcome != nil {
				line = <-outcome
			}
			if line != "" {
				reports++
			}
			pass(100 * time.Millisecond)
		}
		synctest.Wait()
		if n := b.count(); n > 25 {
			t.Errorf("%d triggers in a minute for a relay that is down", n)
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
		if text, _, _ := a.add(testSettings, "600"); text != "" {
			t.Errorf("reported after it had healed: %s", text)
		}
		a.close(t.Context())
	})
}

func TestSenderDropsWhatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recorder{err: func(n int) error {
			if n == 1 {
				return fmt.Errorf("ringing: %w", &trigger.AnswerError{Status: 409})
			}
			return nil
		}}
		a := b.senders()
		if line := a.notify(testSettings, "1"); !strings.Contains(line, "refused with 409") {
			t.Errorf("Kong's log says %q", line)
		}
		pass(time.Minute / 2)
		synctest.Wait()
		if b.count() != 1 {
			t.Errorf("%d triggers for an id that was refused", b.count())
		}
		a.add(testSettings, "2")
		synctest.Wait()
		if !slices.Equal(b.noted(), []string{"2"}) {
			t.Errorf("noted %q", b.noted())
		}
		a.close(t.Context())
	})
}

func TestReportsAreBounded(t *testing.T) {
	a := (&recorder{}).senders()
	for i := range 10_000 {
		a.report(strconv.Itoa(i), [32]byte{})
	}
	if len(a.reports) > maxReports {
		t.Errorf("%d are kept", len(a.reports))
	}
}
