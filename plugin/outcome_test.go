package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A trigger that fails is in Kong's log with the first event that it fails for.
func TestFirstFailureIsReportedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var why atomic.Value // why the relay cannot be triggered; "" while it can
		why.Store("")
		b := &recorder{takes: time.Second, err: func(int) error {
			if text := why.Load().(string); text != "" {
				return errors.New(text)
			}
			return nil
		}}
		a := b.senders()
		if line := a.notify(testSettings, "0"); line != "" {
			t.Errorf("Kong's log says %q of a trigger that succeeded", line)
		}
		pass(time.Minute)
		why.Store("connection refused")
		if line := a.notify(testSettings, "1"); !strings.Contains(line, "connection refused") {
			t.Errorf("Kong's log says %q of the first failure", line)
		}
		for i := range 10 {
			start := time.Now()
			if line := a.notify(testSettings, strconv.Itoa(i)); line != "" || time.Since(start) != 0 {
				t.Errorf("event %d waited %v and logged %q", i, time.Since(start), line)
			}
			pass(time.Second)
		}
		// The next outage is reported as well, though the minute has not passed.
		why.Store("")
		pass(2 * maxPause)
		why.Store("connection reset")
		if line := a.notify(testSettings, "2"); !strings.Contains(line, "connection reset") {
			t.Errorf("Kong's log says %q of the second outage", line)
		}
		why.Store("")
		pass(2 * maxPause)
		a.close(t.Context())
	})
}

// A relay that hangs holds up one event, for a bounded time, however many come.
func TestHangingRelayHoldsUpOneEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recorder{takes: time.Hour}
		a := b.senders()
		const events = 1000
		took := make(chan time.Duration, events)
		for i := range events {
			go func() {
				start := time.Now()
				a.notify(testSettings, strconv.Itoa(i))
				took <- time.Since(start)
			}()
		}
		waited := 0
		for range events {
			switch d := <-took; d {
			case 0:
			case awaitFor:
				waited++
			default:
				t.Errorf("an event took %v", d)
			}
		}
		if waited != 1 {
			t.Errorf("%d events waited", waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), flushFor)
		defer cancel()
		a.close(ctx)
	})
}

// While events keep coming, none of them waits, whatever the interval is.
func TestStreamOfEventsDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recorder{takes: time.Millisecond}
		a := b.senders()
		set := testSettings
		set.minInterval = 10 * time.Second
		a.notify(set, "0")
		for i := range 1000 {
			start := time.Now()
			a.notify(set, strconv.Itoa(i))
			if d := time.Since(start); d != 0 {
				t.Fatalf("event %d waited %v", i, d)
			}
			pass(9 * time.Millisecond)
		}
		a.close(t.Context())
	})
}

// An event that is to wait, or that brings a line, does not end before its id is known.
func TestExpect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		b := &recorder{takes: time.Millisecond, err: func(int) error {
			if down.Load() {
				return errors.New("connection refused")
			}
			return nil
		}}
		a := b.senders()
		check := func(when string, want bool) {
			t.Helper()
			got := a.expect(testSettings)
			if got {
				a.arrive()
			}
			if got != want {
				t.Errorf("%s: %v", when, got)
			}
		}
		check("before the first event", false)
		go a.notify(testSettings, "1")
		synctest.Wait()
		check("while the first one waits", true)
		pass(testSettings.minInterval / 2)
		check("in the interval after it", true)
		pass(time.Minute / 2)
		check("after a while", false)
		down.Store(true)
		a.notify(testSettings, "2")
		check("when the failure has been reported", true)
		pass(time.Minute)
		check("when it is to be reported again", false)
		a.notify(testSettings, "3")
		check("when it has been reported again", true)
		ctx, cancel := context.WithTimeout(t.Context(), flushFor)
		defer cancel()
		a.close(ctx)
		check("after the end", false)
	})
}

// The end of the process awaits an id of an event that has ended, for a bounded time.
func TestCloseAwaitsIDs(t *testing.T) {
	for name, arrives := range map[string]bool{"it arrives": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &recorder{}
				a := b.senders()
				set := testSettings
				set.minInterval = time.Hour
				a.notify(set, "1")
				if !a.expect(set) {
					t.Fatal("the event does not end early")
				}
				go func() {
					pass(comingFor / 2)
					if arrives {
						a.notify(set, "2")
						a.arrive()
					}
				}()
				start := time.Now()
				a.close(t.Context())
				want, took := comingFor, []string{"1"}
				if arrives {
					want, took = comingFor/2, []string{"1", "2"}
				}
				if d := time.Since(start); d != want || !slices.Equal(b.noted(), took) {
					t.Errorf("noted %q after %v", b.noted(), d)
				}
				if !arrives {
					a.notify(set, "2")
					a.arrive()
				}
			})
		})
	}
}

// The end of the process does not wait for the event that waits.
func TestCloseReleasesTheEventThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recorder{takes: time.Hour}
		a := b.senders()
		done := make(chan string)
		go func() { done <- a.notify(testSettings, "0") }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), flushFor)
		defer cancel()
		start := time.Now()
		a.close(ctx)
		if line := <-done; line != "" || time.Since(start) != flushFor {
			t.Errorf("%q after %v", line, time.Since(start))
		}
	})
}

// A plugin process whose parent has ended ends, too, unless it had none that
// matters from the start.
func TestAwaitOrphaned(t *testing.T) {
	for name, test := range map[string]struct {
		parents []int // as they are seen, the last one from then on
		ends    bool
	}{
		"Kong's worker was killed":          {[]int{100, 100, 1}, true},
		"adopted by a subreaper":            {[]int{100, 42}, true},
		"Kong's worker is there":            {[]int{100}, false},
		"a service":                         {[]int{1}, false},
		"a container":                       {[]int{0}, false},
		"a container, adopted in between":   {[]int{0, 1}, false},
		"a service of another init, for us": {[]int{1, 100}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				n, ended := 0, false
				awaitOrphaned(ctx, test.parents[0], func() int {
					n = min(n+1, len(test.parents)-1)
					return test.parents[n]
				}, parentEvery, func() { ended = true })
				if ended != test.ends {
					t.Errorf("ended: %v", ended)
				}
			})
		})
	}
}
