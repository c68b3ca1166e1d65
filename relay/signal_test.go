package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// The first Ctrl-C lets what is in flight end, the second ends the program at once.
func TestSecondInterruptEndsAtOnce(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"serve", "once"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{Faults: cloudtrailtest.Faults{Delay: time.Minute}})
			w.kong.Add(rows("a", 20, func(int) time.Time { return time.Now() })...)
			r := w.start([]string{"RELAY_LISTEN=off", "RELAY_OPS_LISTEN=off"}, command)
			interrupt := func() { _ = r.cmd.Process.Signal(syscall.SIGINT) }
			eventually(t, patient, "a put", func() bool { return w.trail.Counts().Calls > 0 })
			interrupt()
			eventually(t, patient, "a line about it", func() bool { return strings.Contains(r.stderr.String(), "a second Ctrl-C") })
			select {
			case <-r.waited:
				t.Fatalf("ended although a put is in flight:\n%s", r.stderr.String())
			default:
			}
			eventually(t, patient, "the end", func() bool {
				interrupt()
				select {
				case <-r.waited:
					return true
				default:
					return false
				}
			})
			// By the signal itself: the put is still in flight, and what ends in time has a code.
			if state, ok := r.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || state.Signal() != syscall.SIGINT {
				t.Errorf("ended with %v", r.cmd.ProcessState)
			}
		})
	}
}
