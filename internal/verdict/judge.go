// Package verdict decides what an error code that nobody knows says: something
// about an entry, or about the state of its destination.
package verdict

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	// alike is how many entries in a row must be refused with unknown codes, while
	// none is accepted, before that counts as the state of the destination.
	alike = 3
	// maxSuspects and maxTransient bound the memory of a Judge.
	maxSuspects  = 10_000
	maxTransient = 64
)

// Judge keeps a destination from rejecting entries wholesale. An account that
// meets a quota, a channel that is reconfigured, a service with a new error: each
// can refuse everything from some moment on, with a code that is not known.
//
// An entry is rejected for such a code only if it is refused again after the
// destination accepted another entry in the meantime. A code is never held
// against an entry once an entry that was refused with it has been accepted.
//
// The zero value is ready. It is safe for concurrent use.
type Judge struct {
	mu        sync.Mutex
	clock     int64             // counts calls and refusals; what follows are its numbers where no type says otherwise
	accepted  int64             // beginning of the latest call that accepted something
	suspects  map[string]*entry // refused with an unknown code, by ID
	transient map[string]bool   // unknown codes that turned out to be transient
	first     int64             // the first refusal since something was accepted
	refused   int               // entries since then
}

// entry is one that was refused with a code that is not known.
type entry struct {
	code string
	at   int64 // the first refusal
}

// Begin is called when a call begins, and returns its number.
func (j *Judge) Begin() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.clock++
	return j.clock
}

// Accept notes that the call with a number accepted entries.
func (j *Judge) Accept(call int64, ids ...string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.accepted = max(j.accepted, call)
	if call > j.first {
		j.first, j.refused = 0, 0
	}
	if len(j.suspects) == 0 {
		return
	}
	for _, id := range ids {
		if e := j.suspects[id]; e != nil {
			delete(j.suspects, id)
			if len(j.transient) < maxTransient {
				if j.transient == nil {
					j.transient = map[string]bool{}
				}
				j.transient[e.code] = true
			}
		}
	}
}

// Decide decides about an entry that was refused with an unknown code, in a call for it alone
// or in an answer that names it. v holds the code; Decide rejects it if the code is about the
// entry. Otherwise Decide returns the error of the put: an [audit.SettingsError] if the
// destination refuses everything alike, else one for which [IsUndecided] holds. firstCall is
// the number of the call in which the entry's whole batch was first put. laterAccepted reports
// that the same answer accepted an entry that comes after this one in the call.
func (j *Judge) Decide(destination string, v *audit.Verdict, id string, firstCall int64, laterAccepted bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.clock++
	e := j.suspects[id]
	switch {
	case j.transient[v.Code]:
	case e != nil && (laterAccepted || j.accepted > e.at):
		delete(j.suspects, id)
		v.Status = audit.Rejected
		return nil
	default:
		if e == nil {
			j.suspect(id, v.Code)
		}
		if j.refused >= alike && j.accepted < firstCall {
			return audit.SettingsErrorf("nothing was rejected for it: look what the code says of the account, its quotas and the destination, and correct that",
				"%s refuses every entry alike: %s: %s", destination, v.Code, v.Reason)
		}
	}
	return audit.WithHint(&undecidedError{destination, v.Code, v.Reason},
		"look up what AWS says of that code, and at account, quota and the channel or log group: nothing is rejected meanwhile")
}

func (j *Judge) suspect(id, code string) {
	if j.suspects == nil {
		j.suspects = map[string]*entry{}
	}
	if len(j.suspects) < maxSuspects {
		j.suspects[id] = &entry{code: code, at: j.clock}
	}
	if j.refused++; j.first == 0 {
		j.first = j.clock
	}
}

// Narrow finds out for which of n entries a call was refused. put puts those from
// lo to hi in a call by themselves, and calls Narrow again if that is refused as
// well; an error of put ends the search. Single entries come first, so that a destination
// that refuses everything is found out after a few calls.
func Narrow(n int, put func(lo, hi int) error) error {
	parts := [][2]int{{0, n / 2}, {n / 2, n}}
	if n > alike {
		mid, last := n/2, n-1
		parts = [][2]int{{mid, mid + 1}, {last, last + 1}, {0, 1}, {1, mid}, {mid + 1, last}}
	}
	for _, p := range parts {
		if p[0] < p[1] {
			if err := put(p[0], p[1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// undecidedError is what [IsUndecided] finds.
type undecidedError struct{ destination, code, reason string }

func (e *undecidedError) Error() string {
	return fmt.Sprintf("%s refuses with a code that is not known, %s (%s), and accepts nothing that could tell whether that is about the entry", e.destination, e.code, e.reason)
}

// PutError returns the error of a put: nil instead of one for which [IsUndecided] holds
// if some entry was accepted, since what was refused is then simply put again.
func PutError(err error, verdicts []audit.Verdict) error {
	if IsUndecided(err) && slices.ContainsFunc(verdicts, func(v audit.Verdict) bool { return v.Status == audit.Accepted }) {
		return nil
	}
	return err
}

// IsUndecided reports whether an error is that of a put of which nothing was accepted and of
// which something was refused with a code that is not known.
func IsUndecided(err error) bool {
	_, ok := errors.AsType[*undecidedError](err)
	return ok
}
