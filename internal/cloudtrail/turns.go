package cloudtrail

import (
	"context"

	"golang.org/x/time/rate"
)

// burst is how many calls may be made at once. At the default rate of 92 a second there are
// at most 94 calls in any second. That leaves six of AWS's quota of 100 for calls that reach
// AWS late, and so in a second with others, because the machine is busy.
const burst = 2

// turns limits the rate of calls. Of the calls that are not urgent only one at a time waits
// for the limiter, so that an urgent call waits for two turns at most.
type turns struct {
	limiter *rate.Limiter
	line    chan struct{} // holds one element while a call that is not urgent waits
}

func newTurns(limit rate.Limit) *turns {
	return &turns{limiter: rate.NewLimiter(limit, burst), line: make(chan struct{}, 1)}
}

// wait returns nil when it is the call's turn, and an error if ctx ends first.
func (t *turns) wait(ctx context.Context, urgent bool) error {
	if !urgent {
		select {
		case t.line <- struct{}{}:
			defer func() { <-t.line }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return t.limiter.Wait(ctx)
}
