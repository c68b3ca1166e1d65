package verdict

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// What Decide decides.
const (
	retry  = "retry"
	reject = "reject"
	stop   = "stop"
)

func decide(j *Judge, id string, firstCall int64, laterAccepted bool) string {
	v := audit.Verdict{Code: "New"}
	switch err := j.Decide("x", &v, id, firstCall, laterAccepted); {
	case err == nil && v.Status == audit.Rejected:
		return reject
	case v.Status == audit.Retryable && audit.NeedsPerson(err):
		return stop
	case v.Status == audit.Retryable && IsUndecided(err):
		return retry
	default:
		return fmt.Sprint(v, err)
	}
}

func TestJudge(t *testing.T) {
	var j Judge
	refuse := func(id, want string) {
		t.Helper()
		if got := decide(&j, id, j.Begin(), false); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	refuse("a", retry)
	refuse("a", retry) // nothing was accepted since
	early := j.Begin()
	refuse("b", retry)
	j.Accept(early, "x") // by a call that began before b was refused
	refuse("b", retry)
	refuse("a", reject)
	refuse("c", retry)
	refuse("d", retry)
	refuse("e", stop)
	j.Accept(j.Begin(), "y")
	refuse("f", retry)
	refuse("c", reject)
	j.Accept(j.Begin(), "d") // which was refused before: the code passes
	refuse("e", retry)
	refuse("g", retry)
	refuse("g", retry)
}

func TestJudgeAmidOthers(t *testing.T) {
	var j Judge
	call := j.Begin()
	j.Accept(call, "x")
	for i, want := range []string{retry, reject} {
		if got := decide(&j, "a", call, true); got != want {
			t.Errorf("refusal %d: %s", i, got)
		}
	}
}

// A destination that refuses everything from some moment on gets nothing
// rejected, whatever was put before and in whatever order.
func TestJudgeRejectsNothingWholesale(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var j Judge
		change := rapid.IntRange(0, 30).Draw(t, "change")
		for step := range 60 {
			call, id := j.Begin(), fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "id"))
			if step < change {
				j.Accept(call, id)
				continue
			}
			if decide(&j, id, call, false) == reject {
				t.Fatalf("%s was rejected in step %d", id, step)
			}
		}
	})
}

func TestNarrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		bad := rapid.SliceOfDistinct(rapid.IntRange(0, n-1), rapid.ID[int]).Draw(t, "bad")
		var accepted, refused []int
		var put func(at, lo, hi int) error
		put = func(at, lo, hi int) error {
			lo, hi = at+lo, at+hi
			hit := slices.ContainsFunc(bad, func(i int) bool { return lo <= i && i < hi })
			switch {
			case hit && hi-lo == 1:
				refused = append(refused, lo)
			case hit:
				return Narrow(hi-lo, func(l, h int) error { return put(lo, l, h) })
			default:
				for i := lo; i < hi; i++ {
					accepted = append(accepted, i)
				}
			}
			return nil
		}
		if err := put(0, 0, n); err != nil {
			t.Fatal(err)
		}
		slices.Sort(bad)
		slices.Sort(refused)
		slices.Sort(accepted)
		if !slices.Equal(bad, refused) || len(slices.Compact(accepted)) != n-len(bad) {
			t.Fatalf("refused %v, accepted %d", refused, len(accepted))
		}
	})
	end := errors.New("end")
	if err := Narrow(5, func(int, int) error { return end }); !errors.Is(err, end) {
		t.Error(err)
	}
}
