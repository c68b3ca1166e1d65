package app

import (
	"errors"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/delivery"
)

// Explain adds what a person can do about an error of a pass.
func Explain(err error) error {
	switch {
	case errors.Is(err, audit.ErrLeaseHeld):
		return audit.WithHint(err, "wait for the other relay on this source and destination, which makes another pass after its own, "+
			"give --lease-wait more time, or stop that relay")
	case errors.Is(err, audit.ErrLeaseLost):
		return audit.WithHint(err, "run again, nothing is lost: another relay took over, or the ledger could not be reached for longer than the lease")
	case errors.Is(err, delivery.ErrUnavailable) && audit.Hint(err) != "": // it names what is in the way
		return audit.WithHint(err, audit.Hint(err)+"; nothing is lost, and the next pass goes on")
	case errors.Is(err, delivery.ErrUnavailable):
		return audit.WithHint(err, "run again once the destination answers, which relay check shows: nothing is lost, and no entry became a dead letter")
	}
	return err
}

// ErrorAttrs returns the attributes of an error for the log, with its hint if there is one.
func ErrorAttrs(err error) []any {
	if hint := audit.Hint(err); hint != "" {
		return []any{"err", err, "hint", hint}
	}
	return []any{"err", err}
}
