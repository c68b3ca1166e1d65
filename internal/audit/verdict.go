package audit

import "fmt"

// Verdict is what a destination said of one entry. The zero value says nothing:
// the entry is unresolved and has to be put again.
type Verdict struct {
	Status Status
	Code   string // the destination's own word, such as Throttling or InvalidData
	Reason string // for a person; without secrets or payload
}

// Status sorts verdicts by what is to be done.
type Status uint8

// Statuses.
const (
	Unresolved Status = iota // no answer for this entry, or one that may heal: put it again
	Accepted                 // durable at the destination
	Refused                  // for good: putting it again cannot heal it
)

// SettingsError is a failure that trying again cannot heal and that says nothing
// about an entry: a person has to change a setting, a permission or an address.
// A pass that meets one stops and condemns nothing.
type SettingsError struct {
	Err  error
	Hint string // what to do about it
}

func (e *SettingsError) Error() string { return e.Err.Error() }
func (e *SettingsError) Unwrap() error { return e.Err }

// Settingsf returns a SettingsError with a hint and a formatted message.
func Settingsf(hint, format string, args ...any) error {
	return &SettingsError{Err: fmt.Errorf(format, args...), Hint: hint}
}
