package cloudtrailtest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestKeep(t *testing.T) {
	for keep, name := range map[Keep]string{KeepEvents: "events", KeepDigests: "digests", KeepCounts: "counts"} {
		t.Run(name, func(t *testing.T) {
			s := unsigned(func(o *Options) { o.Keep = keep })
			put(t, s, toChannel, good("a", "b"))
			put(t, s, toChannel, good("b", "c"))
			c := s.Counts()
			if c.Events != 4 || c.Distinct != 3 || c.Repeats != 1 || s.Times("b") != 2 || s.Times("z") != 0 {
				t.Errorf("counts %+v", c)
			}
			got := s.Events()
			if keep == KeepCounts {
				if len(got) != 0 {
					t.Errorf("kept %d events", len(got))
				}
				return
			}
			for i, id := range []string{"a", "b", "b", "c"} {
				want := goodData(id)
				if e := got[i]; e.Seq != i+1 || e.ID != id || e.UID != id || e.SHA256 != sha256.Sum256([]byte(want)) ||
					e.Source != "kong-gateway" || e.Repeat != (i == 2) || (e.Data == want) != (keep == KeepEvents) {
					t.Errorf("event %d: %+v", i, e)
				}
			}
		})
	}
}

func TestRemove(t *testing.T) {
	for _, keep := range []Keep{KeepEvents, KeepDigests, KeepCounts} {
		s := unsigned(func(o *Options) { o.Keep = keep })
		put(t, s, toChannel, good("a", "b"))
		put(t, s, toChannel, good("b"))
		if s.Remove("z") {
			t.Error("removed what was not there")
		}
		if !s.Remove("b") || s.Times("b") != 1 || !s.Remove("b") || s.Times("b") != 0 || s.Remove("b") {
			t.Error("b was there twice")
		}
		if got := s.Events(); keep != KeepCounts && (len(got) != 1 || got[0].ID != "a") || s.Counts().Distinct != 1 {
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
