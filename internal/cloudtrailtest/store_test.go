package cloudtrailtest

import "testing"

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
