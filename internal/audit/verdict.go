package audit

import (
	"errors"
	"fmt"
)

// Verdict is what a destination said about one entry. The zero value is
// [Retryable]: the destination said nothing, and the entry must be put again.
type Verdict struct {
	Status Status
	Code   string // the destination's code, such as Throttling or InvalidData; empty if it gave none
	Reason string // for a person; holds no secret and no payload
	// AnswerLost reports that the destination may have accepted the entry: its answer did not
	// arrive, or cannot be read.
	AnswerLost bool
}

// Status sorts verdicts by what to do next.
type Status uint8

// Statuses.
const (
	Retryable Status = iota // no answer for this entry, or one that may pass: put it again
	Accepted                // durable at the destination
	Rejected                // permanently: putting the entry again cannot succeed
)

// HintError is an error with advice for the person who operates the relay. It
// says nothing about whether trying again may succeed.
type HintError struct {
	Err  error
	Hint string // what to do, without a full stop at its end
}

func (e *HintError) Error() string { return e.Err.Error() }
func (e *HintError) Unwrap() error { return e.Err }

// WithHint adds advice to an error. It returns nil if err is nil.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &HintError{Err: err, Hint: hint}
}

// Hint returns the advice that an error carries, or the empty string.
func Hint(err error) string {
	if h, ok := errors.AsType[*HintError](err); ok {
		return h.Hint
	}
	return ""
}

// SettingsError is a failure that trying again cannot cure and that says nothing
// about any entry: a person must change a setting, a permission or an address.
// A pass that meets one stops, and rejects nothing because of it.
type SettingsError struct{ Err error }

func (e *SettingsError) Error() string { return e.Err.Error() }
func (e *SettingsError) Unwrap() error { return e.Err }

// SettingsErrorf returns a [SettingsError] that carries advice and a formatted message.
func SettingsErrorf(hint, format string, args ...any) error {
	return NewSettingsError(fmt.Errorf(format, args...), hint)
}

// NewSettingsError marks an error as a [SettingsError] and adds advice.
func NewSettingsError(err error, hint string) error {
	return &SettingsError{Err: WithHint(err, hint)}
}

// NeedsPerson reports whether trying again cannot cure err because a person must
// change something first.
func NeedsPerson(err error) bool {
	_, ok := errors.AsType[*SettingsError](err)
	return ok
}

// DestinationError is a failure that has nothing to do with the entries that were
// put: throttling, credentials that could not be had, no connection. Putting
// fewer of them at a time cannot help; putting them again later may.
type DestinationError struct{ Err error }

func (e *DestinationError) Error() string { return e.Err.Error() }
func (e *DestinationError) Unwrap() error { return e.Err }

// IsDestinationError reports whether err has nothing to do with the entries that were put.
func IsDestinationError(err error) bool {
	var d *DestinationError
	return errors.As(err, &d)
}
