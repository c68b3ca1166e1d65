// Package health knows which dependencies of the relay answer, since when, and why
// one does not. It logs what changes and keeps outages until they are stored.
//
// It contacts nobody and reads no clock: its host reports what became of each call.
package health

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Dependency is something that delivery depends on.
type Dependency string

// Dependencies.
const (
	Kong        Dependency = "kong"
	Ledger      Dependency = "ledger"
	Destination Dependency = "destination"
	Triggers    Dependency = "triggers"
	Recording   Dependency = "recording" // whether Kong records what it answers
	// Passes fail without a dependency failing, for example because another relay took
	// over the lease.
	Passes Dependency = "passes"
)

// Dependencies are all of them, in the order in which they are shown.
func Dependencies() []Dependency {
	return []Dependency{Kong, Ledger, Destination, Triggers, Recording, Passes}
}

// Status of a dependency.
type Status string

// Statuses.
const (
	Unknown Status = "unknown" // it was not needed yet
	OK      Status = "ok"
	Failing Status = "failing"
)

const (
	// patience is how long after a failure another call may succeed before the
	// dependency counts as failing. A destination throttles single calls under load.
	patience = time.Second
	// remindEvery is the time between two log lines about a dependency that fails.
	remindEvery   = 30 * time.Second
	maxCause      = 400  // bytes
	maxOutages    = 1000 // that wait to be stored
	maxRecovering = 100
)

// State is the state of a dependency.
type State struct {
	Dependency Dependency `json:"dependency"`
	Status     Status     `json:"status"`
	Since      time.Time  `json:"since,omitzero"`
	Cause      string     `json:"cause,omitempty"`
	Hint       string     `json:"hint,omitempty"`
	NextTry    time.Time  `json:"next_try,omitzero"`
	Failures   int        `json:"failures,omitempty"` // of this outage

	Reached bool      `json:"-"` // it has answered once
	Asked   time.Time `json:"-"` // when a call last ended
	Outages int       `json:"-"` // that have ended
}

// works begins the time in which a dependency works.
func (s *State) works(now time.Time) {
	s.Status, s.Since, s.Cause, s.Hint, s.NextTry, s.Failures = OK, now, "", "", time.Time{}, 0
}

// Tracker takes reports and knows the states. It is safe for concurrent use.
type Tracker struct {
	log *slog.Logger

	mu           sync.Mutex
	dependencies map[Dependency]*dependency
	recovering   []*audit.Outage // over, while entries that waited may still have no outcome
	changed      []audit.Outage  // to be stored
	changes      uint64
}

// dependency is the state of a dependency, and the operations from which it follows.
type dependency struct {
	State
	failing map[string]*failure // by operation, since it last succeeded
	logged  time.Time
	outage  *audit.Outage
}

// UnansweredError says that a call has had no answer for so long that it counts as failed,
// although it goes on. The dependency then counts as failing at once, without patience.
type UnansweredError struct {
	Since time.Time
	For   time.Duration
}

func (e *UnansweredError) Error() string { return "no answer within " + e.For.String() }

// failure is an operation that has failed since it last succeeded.
type failure struct {
	since time.Time
	err   error
}

// New returns a tracker that knows nothing yet.
func New(log *slog.Logger) *Tracker {
	t := &Tracker{log: log, dependencies: map[Dependency]*dependency{}}
	for _, d := range Dependencies() {
		t.dependencies[d] = &dependency{State: State{Dependency: d, Status: Unknown}, failing: map[string]*failure{}}
	}
	return t
}

// Report notes the outcome of an operation of a dependency. A dependency fails as
// long as one of its operations does: a ledger that is full still answers reads.
func (t *Tracker) Report(now time.Time, d Dependency, operation string, err error) {
	if errors.Is(err, context.Canceled) {
		return // the caller gave up
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	dep := t.dependencies[d]
	dep.Asked = now
	if err == nil {
		t.succeeded(now, dep, operation)
		return
	}
	if d == Passes && t.explained() {
		return
	}
	f := dep.failing[operation]
	if f == nil {
		f = &failure{since: now}
		dep.failing[operation] = f
	}
	if u, ok := errors.AsType[*UnansweredError](err); ok && u.Since.Before(f.since) {
		f.since = u.Since
	}
	f.err = err
	dep.Failures++
	switch {
	case dep.Status == Failing:
		dep.describe(err)
	case audit.NeedsPerson(err) || now.Sub(f.since) >= patience:
		t.begin(now, dep, f)
	}
}

// explained reports whether a dependency fails or may be failing, which explains why passes
// fail. t.mu is held.
func (t *Tracker) explained() bool {
	for _, d := range []Dependency{Kong, Ledger, Destination} {
		if len(t.dependencies[d].failing) > 0 {
			return true
		}
	}
	return false
}

// succeeded notes an operation that succeeded. t.mu is held.
func (t *Tracker) succeeded(now time.Time, dep *dependency, operation string) {
	dep.Reached = true
	delete(dep.failing, operation)
	if len(dep.failing) > 0 {
		return
	}
	switch dep.Status {
	case OK:
		dep.Failures = 0
	case Unknown:
		t.changes++
		dep.works(now)
	case Failing:
		t.changes++
		took := now.Sub(dep.Since)
		t.log.Info("dependency works again", "dependency", string(dep.Dependency), "seconds", took.Round(time.Millisecond).Seconds(),
			"failures", dep.Failures, "cause", dep.Cause)
		dep.works(now)
		dep.Outages++
		o := dep.outage
		dep.outage = nil
		o.To, o.Seen = now, now
		if t.recovering = append(t.recovering, o); len(t.recovering) > maxRecovering {
			t.recovering = t.recovering[1:] // another relay makes the passes
		}
		t.store(o)
	}
}

// begin begins an outage. t.mu is held.
func (t *Tracker) begin(now time.Time, dep *dependency, f *failure) {
	t.changes++
	dep.Status, dep.Since, dep.logged = Failing, f.since, now
	dep.describe(f.err)
	dep.outage = &audit.Outage{ID: rand.Text(), Dependency: string(dep.Dependency), Cause: dep.Cause, From: f.since, Seen: now}
	t.store(dep.outage)
	t.log.Warn("dependency is failing", t.attrs(dep)...)
}

func (t *Tracker) attrs(dep *dependency) []any {
	attrs := []any{"err", dep.Cause, "dependency", string(dep.Dependency)}
	if dep.Hint != "" {
		attrs = append(attrs, "hint", dep.Hint)
	}
	return attrs
}

func (dep *dependency) describe(err error) {
	dep.Cause, dep.Hint = Clean(err.Error()), audit.Hint(err)
}

// Clean makes an error a single line of bounded length.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxCause {
		s = strings.ToValidUTF8(s[:maxCause], "") + " …"
	}
	return s
}

// Tick begins the outages of what has not recovered in time, and logs those that go on.
// Its host calls it a few times a second.
func (t *Tracker) Tick(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range Dependencies() {
		dep := t.dependencies[d]
		if d == Passes && dep.Status != Failing && t.explained() {
			clear(dep.failing) // what fails was reported after the pass had
		}
		if dep.Status != Failing {
			for _, f := range dep.failing {
				if now.Sub(f.since) >= patience {
					t.begin(now, dep, f)
					break
				}
			}
			continue
		}
		if now.Sub(dep.logged) < remindEvery {
			continue
		}
		dep.logged, dep.outage.Seen, dep.outage.Cause = now, now, dep.Cause
		t.store(dep.outage)
		t.log.Warn("dependency is still failing", append(t.attrs(dep), "failures", dep.Failures,
			"seconds", now.Sub(dep.Since).Round(time.Second).Seconds())...)
	}
}

// Delivered counts those of the entries that waited for the end of an outage.
func (t *Tracker) Delivered(entries []audit.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.recovering {
		for i := range entries {
			if entries[i].Timestamp <= o.To.Unix() {
				o.Waited++
			}
		}
	}
}

// Completed notes the end of a pass that left nothing undelivered.
func (t *Tracker) Completed(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.recovering {
		o.CompleteAt = now
		t.store(o)
		t.log.Info("everything from an outage is delivered", "dependency", o.Dependency, "entries", o.Waited,
			"seconds", now.Sub(o.From).Round(time.Millisecond).Seconds())
	}
	t.recovering = nil
}

// SetNextTry notes when the passes will be tried again; zero for not known.
func (t *Tracker) SetNextTry(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, dep := range t.dependencies {
		dep.NextTry = time.Time{}
		if dep.Status == Failing {
			dep.NextTry = at
		}
	}
}

// States returns the state of every dependency.
func (t *Tracker) States() []State {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]State, 0, len(t.dependencies))
	for _, d := range Dependencies() {
		s := t.dependencies[d].State
		if s.Status != Failing {
			s.Failures = 0
		}
		list = append(list, s)
	}
	return list
}

// Changes returns how often the status of a dependency has changed.
func (t *Tracker) Changes() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changes
}

// State returns the state of a dependency.
func (t *Tracker) State(d Dependency) State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dependencies[d].State
}

// Forget ends the failures of all operations of a dependency that was seen to work by other
// means.
func (t *Tracker) Forget(now time.Time, d Dependency) {
	t.mu.Lock()
	defer t.mu.Unlock()
	dep := t.dependencies[d]
	clear(dep.failing)
	t.succeeded(now, dep, "")
}

// Recovered ends the failure of an operation of a dependency. It changes nothing if the
// operation had not failed: that it works may prove nothing.
func (t *Tracker) Recovered(now time.Time, d Dependency, operation string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if dep := t.dependencies[d]; dep.failing[operation] != nil {
		t.succeeded(now, dep, operation)
	}
}
