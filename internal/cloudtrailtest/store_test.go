package cloudtrailtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// kept are the ways to keep events.
var kept = []Options{{Unsigned: true}, {Unsigned: true, Digest: true}, {Unsigned: true, Lean: true}}

func TestKeep(t *testing.T) {
	for _, o := range kept {
		s := New(o)
		put(t, s, toChannel, good("a", "b"))
		put(t, s, toChannel, good("b", "c"))
		c := s.Counts()
		if c.Events != 4 || c.Distinct != 3 || c.Repeats != 1 || s.Times("b") != 2 || s.Times("z") != 0 {
			t.Errorf("counts %+v", c)
		}
		got := s.Events()
		if o.Lean {
			if len(got) != 0 {
				t.Errorf("kept %d events", len(got))
			}
			continue
		}
		for i, id := range []string{"a", "b", "b", "c"} {
			if e := got[i]; e.Seq != i+1 || e.ID != id || e.UID != id || e.Place != "kong-gateway" || e.Repeat != (i == 2) || (e.Data == goodData(id)) == o.Digest {
				t.Errorf("event %d: %+v", i, e)
			}
		}
	}
}

func TestRemove(t *testing.T) {
	for _, o := range kept {
		s := New(o)
		put(t, s, toChannel, good("a", "b"))
		put(t, s, toChannel, good("b"))
		if s.Remove("z") {
			t.Error("removed what was not there")
		}
		if !s.Remove("b") || s.Times("b") != 1 || !s.Remove("b") || s.Times("b") != 0 || s.Remove("b") {
			t.Error("b was there twice")
		}
		if got := s.Events(); !o.Lean && (len(got) != 1 || got[0].ID != "a") || s.Counts().Distinct != 1 {
			t.Errorf("left: %v", got)
		}
		put(t, s, toChannel, good("b"))
		if s.Counts().Repeats != 1 || s.Times("b") != 1 {
			t.Errorf("after it came back: %+v", s.Counts())
		}
	}
}

func TestWatch(t *testing.T) {
	s := unsigned(func(o *Options) { o.CallsPerSecond = -1 })
	put(t, s, toChannel, good("old"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	const writers, calls = 4, 20
	var wg sync.WaitGroup
	var got [2][]int
	for i := range got {
		wg.Go(func() {
			mine, stop := context.WithCancel(ctx)
			defer stop()
			s.Watch(mine, i, func(e Event) { // the second begins after the old one
				got[i] = append(got[i], e.Seq)
				if e.Seq == 1+2*writers*calls {
					stop()
				}
			})
		})
	}
	for w := range writers {
		wg.Go(func() {
			for c := range calls {
				put(t, s, toChannel, good(fmt.Sprintf("%d-%d", w, c), fmt.Sprintf("%d-%d-b", w, c)))
			}
		})
	}
	wg.Wait()
	for i := range got {
		if len(got[i]) != 1+2*writers*calls-i || !slices.IsSorted(got[i]) || got[i][0] != 1+i {
			t.Errorf("watcher %d saw %v", i, got[i])
		}
	}
}
