package cloudtrail

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/verdict"
)

// putTwice puts entries, then once more those that are retryable, and returns
// the verdicts of the last put of each.
func putTwice(t *testing.T, s *Destination, es []audit.Entry) []audit.Verdict {
	t.Helper()
	verdicts, err := s.Put(t.Context(), es)
	if err != nil {
		t.Fatal(err)
	}
	var rest []audit.Entry
	var at []int
	for i, v := range verdicts {
		switch v.Status {
		case audit.Rejected:
			t.Errorf("%s was rejected at its first refusal: %+v", es[i].ID, v)
		case audit.Accepted:
		case audit.Retryable:
			rest, at = append(rest, es[i]), append(at, i)
		}
	}
	again, err := s.Put(t.Context(), rest)
	if err != nil && !verdict.IsUndecided(err) {
		t.Fatal(err)
	}
	for i, v := range again {
		verdicts[at[i]] = v
	}
	return verdicts
}

// What hits every event, while nothing else is accepted, is hardly about the
// events: a quota whose code is not known yet, say.
func TestPutRefusedAlike(t *testing.T) {
	for name, refuse := range map[string]func(w http.ResponseWriter, c call){
		"calls": func(w http.ResponseWriter, _ call) { refuseCall(w, "ServiceQuotaExceededException") },
		"events": func(w http.ResponseWriter, c call) {
			failed := map[string]string{}
			for _, id := range c.ids() {
				failed[id] = "ServiceQuotaExceededException"
			}
			_, _ = io.WriteString(w, c.answer(failed))
		},
	} {
		t.Run(name, func(t *testing.T) {
			refusing := false
			srv := serve(t, func(w http.ResponseWriter, c call, _ int) {
				if refusing {
					refuse(w, c)
					return
				}
				_, _ = io.WriteString(w, c.answer(nil))
			})
			s := newDestination(t, at(srv.URL))
			if _, err := s.Put(t.Context(), entries(100)); err != nil {
				t.Fatal(err)
			}
			refusing = true // from the middle of a pass
			before := len(srv.seen())
			for range 3 {
				verdicts, err := s.Put(t.Context(), entries(100))
				var setting *audit.SettingsError
				if !errors.As(err, &setting) || !strings.Contains(err.Error(), "ServiceQuotaExceededException") || audit.Hint(setting) == "" {
					t.Errorf("%v", err)
				}
				if got := statuses(verdicts); got != strings.Repeat("U", 100) {
					t.Errorf("%s", got)
				}
			}
			if n := len(srv.seen()) - before; n > 3*4 {
				t.Errorf("%d calls", n)
			}
			refusing = false
			if verdicts, err := s.Put(t.Context(), entries(100)); err != nil || statuses(verdicts) != strings.Repeat("A", 100) {
				t.Errorf("%s, %v", statuses(verdicts), err)
			}
		})
	}
}

// One entry after the other, as triggers put them.
func TestPutRefusedOneByOne(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, _ call, _ int) { refuseCall(w, "SomethingNew") })
	s := newDestination(t, at(srv.URL))
	for i, e := range entries(30) {
		verdicts, err := s.Put(t.Context(), []audit.Entry{e})
		if statuses(verdicts) != "U" || err == nil || audit.NeedsPerson(err) != (i >= 2) {
			t.Errorf("entry %d: %s, %v", i, statuses(verdicts), err)
		}
	}
}

// A service that refuses every other call with a code that is not known says
// nothing about events: those that it refused are accepted a moment later.
func TestPutRefusedNowAndThen(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, c call, n int) {
		if n%2 == 0 {
			refuseCall(w, "SomethingNew")
			return
		}
		_, _ = io.WriteString(w, c.answer(nil))
	})
	s := newDestination(t, at(srv.URL))
	left := entries(100)
	for round := 0; len(left) > 0; round++ {
		if round == 20 {
			t.Fatalf("%d are left", len(left))
		}
		var rest []audit.Entry
		for batch := range slices.Chunk(left, 7) {
			verdicts, err := s.Put(t.Context(), batch)
			if err != nil && !verdict.IsUndecided(err) {
				t.Fatal(err)
			}
			for i, v := range verdicts {
				switch v.Status {
				case audit.Rejected:
					t.Errorf("%s: %+v", batch[i].ID, v)
				case audit.Accepted:
				case audit.Retryable:
					rest = append(rest, batch[i])
				}
			}
		}
		left = rest
	}
}

// A run of bad events among good ones of the same batch.
func TestPutRefusedInARun(t *testing.T) {
	bad := func(c call) bool {
		for _, id := range c.ids() {
			if n, _ := strconv.Atoi(id[1:]); n >= 2 && n < 48 {
				return true
			}
		}
		return false
	}
	srv := serve(t, func(w http.ResponseWriter, c call, _ int) {
		if bad(c) {
			refuseCall(w, "ValidationException")
			return
		}
		_, _ = io.WriteString(w, c.answer(nil))
	})
	s := newDestination(t, at(srv.URL))
	verdicts := putTwice(t, s, entries(100))
	if want := "AA" + strings.Repeat("R", 46) + strings.Repeat("A", 52); statuses(verdicts) != want {
		t.Errorf("%s", statuses(verdicts))
	}
}

// An event among others that a 200 accepts is rejected once it is refused again.
func TestPutRefusedEventAmongOthers(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, c call, _ int) {
		_, _ = io.WriteString(w, c.answer(map[string]string{"e3": "SomethingNew"}))
	})
	s := newDestination(t, at(srv.URL))
	verdicts, err := s.Put(t.Context(), entries(10))
	if err != nil || statuses(verdicts) != "AAAUAAAAAA" {
		t.Fatal(statuses(verdicts), err)
	}
	if verdicts, err = s.Put(t.Context(), entries(10)[3:4]); !verdict.IsUndecided(err) || statuses(verdicts) != "U" {
		t.Errorf("nothing was accepted since: %s, %v", statuses(verdicts), err)
	}
	if verdicts, err = s.Put(t.Context(), entries(12)[10:]); err != nil || statuses(verdicts) != "AA" {
		t.Errorf("%s, %v", statuses(verdicts), err)
	}
	if verdicts, err = s.Put(t.Context(), entries(10)[3:4]); err != nil || statuses(verdicts) != "R" {
		t.Errorf("%s, %v", statuses(verdicts), err)
	}
}
