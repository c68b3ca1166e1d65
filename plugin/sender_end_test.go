package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// A configuration that is gone leaves no goroutine, whether its relay answers
// or not: synctest fails if one is left.
func TestSenderEnds(t *testing.T) {
	for _, err := range []error{nil, errors.New("down")} {
		synctest.Test(t, func(t *testing.T) {
			b := &recorder{err: func(int) error { return err }}
			a := b.senders()
			for i := range 100 {
				set := testSettings
				set.secret = strconv.Itoa(i)
				a.add(set, strconv.Itoa(i))
			}
			pass(giveUpAfter + maxPause + idleAfter)
			a.running.Wait()
			if len(a.bySet) != 0 {
				t.Errorf("%d senders are left", len(a.bySet))
			}
			if ids := b.noted(); err == nil && len(ids) != 100 {
				t.Errorf("%d ids were noted", len(ids))
			}
			// It comes back with the next event.
			b.err = nil
			a.add(testSettings, "again")
			synctest.Wait()
			if !slices.Contains(b.noted(), "again") {
				t.Error("the next event was lost")
			}
			a.close(t.Context())
		})
	}
}

func TestSendersCloseFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recorder{takes: time.Millisecond}
		a := b.senders()
		set := testSettings
		set.minInterval = time.Hour
		a.add(set, "0")
		pass(time.Second)
		for i := 1; i < 5; i++ {
			a.add(set, strconv.Itoa(i))
		}
		start := time.Now()
		a.close(t.Context())
		if took := time.Since(start); took != time.Millisecond {
			t.Errorf("took %v", took)
		}
		if !slices.Equal(b.noted(), numbers(0, 5)) {
			t.Errorf("noted %q", b.noted())
		}
		if a.add(set, "late"); len(a.bySet) > 1 {
			t.Error("a sender started after close")
		}
	})
}

// Closing repeats a poll that waits and one that is in flight.
func TestSendersCloseSendsPolls(t *testing.T) {
	for _, inFlight := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := &recorder{takes: time.Minute}
			a := b.senders()
			a.add(testSettings, map[bool]string{false: "0", true: ""}[inFlight])
			synctest.Wait()
			a.add(testSettings, "1")
			if !inFlight {
				a.add(testSettings, "")
			}
			b.takes = time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), flushFor)
			defer cancel()
			a.close(ctx)
			if !slices.Contains(b.noted(), "1") || b.polls() != 1 {
				t.Errorf("noted %q, and %d polls", b.noted(), b.polls())
			}
		})
	}
}

// The last trigger includes the ids of one that waits for its next attempt.
func TestSendersCloseRepeatsWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recorder{takes: time.Minute}
		a := b.senders()
		a.add(testSettings, "1")
		synctest.Wait()
		b.takes = time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), flushFor)
		defer cancel()
		a.close(ctx)
		if !slices.Equal(b.noted(), []string{"1"}) {
			t.Errorf("noted %q", b.noted())
		}
	})
}

func TestSenderSurvivesItsTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		b := &recorder{err: func(n int) error {
			if first {
				first = false
				return []error{}[n] // a bug
			}
			return nil
		}}
		a := b.senders()
		a.add(testSettings, "1")
		pass(time.Second)
		synctest.Wait()
		if !slices.Equal(b.noted(), []string{"1"}) {
			t.Errorf("noted %q", b.noted())
		}
		a.close(t.Context())
	})
}
