package health

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// rig is a tracker with a clock and a log.
type rig struct {
	*Tracker
	log bytes.Buffer
	now time.Time
}

func newRig() *rig {
	r := &rig{now: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)}
	r.Tracker = New(slog.New(slog.NewTextHandler(&r.log, nil)))
	return r
}

// run lets time pass, a quarter of a second at a time, and reports an outcome each time.
func (r *rig) run(d time.Duration, report func()) {
	for end := r.now.Add(d); r.now.Before(end); r.now = r.now.Add(250 * time.Millisecond) {
		if report != nil {
			report()
		}
		r.Tick(r.now)
	}
}

func (r *rig) logged(text string) int { return strings.Count(r.log.String(), text) }

func TestSpell(t *testing.T) {
	r := newRig()
	fails := func() {
		r.Report(r.now, Destination, "put", audit.WithHint(errors.New("no route\nto host"), "look at the network"))
	}
	r.Report(r.now, Destination, "put", nil)
	r.run(2*time.Second, fails)
	if s := r.State(Destination); s.Status != Failing || s.Cause != "no route to host" || s.Hint != "look at the network" || r.logged("dependency is failing") != 1 {
		t.Fatalf("%+v\n%s", s, r.log.String())
	}
	r.run(88*time.Second, fails)
	if n := r.logged("dependency is still failing"); n != 2 || r.logged("level=WARN") != 3 {
		t.Errorf("%d reminders in 90 s\n%s", n, r.log.String())
	}
	r.Report(r.now, Destination, "put", nil)
	r.Delivered([]audit.Entry{{Timestamp: r.now.Unix() - 20}, {Timestamp: r.now.Unix() + 20}})
	r.Completed(r.now.Add(time.Second))
	if r.logged("dependency works again") != 1 || r.logged("entries=1") != 1 || r.State(Destination).Outages != 1 {
		t.Errorf("the end:\n%s", r.log.String())
	}
	list := r.TakeOutages()
	if len(list) != 1 || list[0].Waited != 1 || list[0].To.IsZero() || list[0].CompleteAt.IsZero() || list[0].Cause == "" {
		t.Errorf("%+v", list)
	}
	if list := r.TakeOutages(); len(list) != 0 {
		t.Errorf("taken twice: %+v", list)
	}
}

// Single calls that fail under load, between others that succeed, are not an outage.
func TestThrottledCallsAreNoOutage(t *testing.T) {
	r := newRig()
	n := 0
	r.run(time.Minute, func() {
		var err error
		if n++; n%3 != 0 {
			err = errors.New("throttled")
		}
		r.Report(r.now, Destination, "put", err)
	})
	if r.log.Len() > 0 || r.State(Destination).Status != OK {
		t.Errorf("%+v\n%s", r.State(Destination), r.log.String())
	}
}

// A ledger that answers reads and refuses writes fails until it takes writes.
func TestOperationsFailEachByThemselves(t *testing.T) {
	r := newRig()
	both := func() {
		r.Report(r.now, Ledger, "read", nil)
		r.Report(r.now, Ledger, "write", errors.New("OOM"))
	}
	r.run(5*time.Second, both)
	if s := r.State(Ledger); s.Status != Failing || r.logged("works again") != 0 {
		t.Errorf("%+v\n%s", s, r.log.String())
	}
	r.Report(r.now, Ledger, "write", nil)
	if s := r.State(Ledger); s.Status != OK {
		t.Errorf("%+v", s)
	}
}

func TestSettingsErrorIsSaidAtOnce(t *testing.T) {
	r := newRig()
	r.Report(r.now, Kong, "read", audit.SettingsErrorf("set the token", "401"))
	if r.logged("dependency is failing") != 1 {
		t.Error("not said")
	}
	r.Report(r.now, Destination, "put", context.Canceled)
	r.run(5*time.Second, nil)
	if s := r.State(Destination); s.Status != Unknown {
		t.Errorf("a call that was given up: %+v", s)
	}
}

// A call that has not been answered for some time fails since it began, and is said at once.
func TestUnansweredCall(t *testing.T) {
	r := newRig()
	began := r.now.Add(-2500 * time.Millisecond)
	r.Report(r.now, Kong, "read", &UnansweredError{Since: began, For: 2500 * time.Millisecond})
	if s := r.State(Kong); s.Status != Failing || !s.Since.Equal(began) || r.logged("no answer within 2.5s") != 1 {
		t.Errorf("%+v\n%s", s, r.log.String())
	}
}

// A pass that fails because a dependency does is not named beside it.
func TestPassesAreExplainedByDependencies(t *testing.T) {
	r := newRig()
	r.Report(r.now, Kong, "read", audit.SettingsErrorf("set the token", "401"))
	r.Report(r.now, Passes, "pass", errors.New("reading: 401"))
	r.run(5*time.Second, nil)
	if s := r.State(Passes); s.Status == Failing {
		t.Errorf("%+v", s)
	}
	r.Report(r.now, Kong, "read", nil)
	r.Report(r.now, Passes, "pass", errors.New("lease lost"))
	r.run(5*time.Second, nil)
	if s := r.State(Passes); s.Status != Failing || s.Cause != "lease lost" {
		t.Errorf("%+v", s)
	}
}

// What could not be stored is stored later, as it is then.
func TestOutagesThatAreGivenBack(t *testing.T) {
	r := newRig()
	r.Report(r.now, Kong, "read", audit.SettingsErrorf("set the token", "401"))
	list := r.TakeOutages()
	r.Report(r.now.Add(time.Minute), Kong, "read", nil)
	r.GiveBack(list)
	if list = r.TakeOutages(); len(list) != 1 || list[0].To.IsZero() {
		t.Errorf("%+v", list)
	}
}
