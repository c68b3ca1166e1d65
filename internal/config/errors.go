package config

import (
	"errors"
	"fmt"
	"strings"
)

// Error is everything that is wrong with the settings, or with a command line. A command that
// gets one ends with exit code 2.
type Error struct {
	lines []string
}

func (e *Error) Error() string {
	if len(e.lines) == 1 {
		return e.lines[0]
	}
	return fmt.Sprintf("%d settings are wrong:\n  %s", len(e.lines), strings.Join(e.lines, "\n  "))
}

func (e *Error) add(format string, args ...any) {
	e.lines = append(e.lines, fmt.Sprintf(format, args...))
}

// valueError says what a value should have been, and what to do.
type valueError struct{ expected, hint string }

func (e *valueError) Error() string { return "expected " + e.expected }

// expected returns the error for a value that is not what it should be. Without a hint
// the setting's default or example is one.
func expected(what, hint string) error { return &valueError{what, hint} }

func (e *Error) wrongValue(row setting, text string, err error) {
	e.add("--%s (%s) is %s: %v. %s", row.name, row.variable(), quoteValue(text), err, row.advice(err))
}

func (e *Error) missing(name, what string) {
	row := rowNamed(name)
	e.add("--%s (%s) is not set: %s. %s", row.name, row.variable(), expected(what, ""), row.advice(nil))
}

func (s setting) advice(err error) string {
	var v *valueError
	switch {
	case errors.As(err, &v) && v.hint != "":
		return v.hint
	case s.def != "":
		return "Leave it out for " + s.def + "."
	case s.example != "":
		return "For example: " + s.example
	}
	return "Give " + s.plainHelp() + "."
}

// maxShown is how much of a value an error shows, in bytes.
const maxShown = 100

// notRepeated stands for a value that may hold a credential.
const notRepeated = "set to something that is not repeated here"

// quoteValue quotes a value, unless it may hold a credential or is a whole file.
func quoteValue(text string) string {
	if strings.ContainsAny(text, "@?\n") || strings.Contains(text, "-----") {
		return notRepeated
	}
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return fmt.Sprintf("%q", text)
}

// Usagef returns the [*Error] of a command line that makes no sense.
func Usagef(format string, args ...any) error {
	return &Error{lines: []string{fmt.Errorf(format, args...).Error()}}
}
