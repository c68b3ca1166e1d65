package app

import (
	"errors"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// Explain adds what a person can do about an error of a pass.
func Explain(err error) error {
	switch {
	case errors.Is(err, audit.ErrLeaseHeld):
		return audit.WithHint(err, "another relay works on this source and destination and was told that there is something to look for; "+
			"wait for it, give --lease-wait more time, or stop it")
	case errors.Is(err, audit.ErrLeaseLost):
		return audit.WithHint(err, "another relay took over, or the ledger could not be reached for longer than the lease; run again, nothing is lost")
	case errors.Is(err, pipeline.ErrUnavailable):
		return audit.WithHint(err, "nothing is lost and nothing was made a dead letter: run again once the destination answers (relay check tells)")
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
