package main

import (
	"syscall"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
)

// replicaFaults are several relays on one destination.
func replicaFaults() []faultCase {
	// Nothing but the lease that has run out makes the other relay go on.
	alone := []string{"RELAY_SCHEDULE=1h"}
	slow := cloudtrailtest.Options{Faults: cloudtrailtest.Faults{Delay: 250 * time.Millisecond}} // the holder is at work when it goes
	return []faultCase{
		{name: "two relays from empty", entries: 3000, anyWay: true, play: func(f *faultRun) {
			a, b := f.up(), f.up()
			for range 4 {
				f.await(f.some(4))
				f.more(20, f.now())
				f.notify(a)
				f.notify(b)
				f.check("both work")
			}
		}},
		{name: "once beside serve", entries: 2500, anyWay: true, play: func(f *faultRun) {
			f.up()
			f.await(f.some(4))
			f.once()
			f.check("once is done")
			f.more(100, f.now())
			f.once()
		}},
		{name: "holder killed, another takes over", entries: 2500, trail: slow, env: alone, play: func(f *faultRun) {
			f.holder(func(a *faultRelay) { f.kill(a) })
		}},
		{name: "holder frozen and woken", entries: 2500, trail: slow, env: alone, play: func(f *faultRun) {
			a := f.holder(func(a *faultRelay) {
				f.signal(a, syscall.SIGSTOP)
				f.allowed += 2 * f.inFlight() // by who takes over, and by who wakes up
			})
			f.await(len(f.rows))
			f.signal(a, syscall.SIGCONT)
			f.check("woken")
		}},
	}
}

// holder has two relays, of which the first works; once that is stopped, the
// second has to go on when its lease has run out.
func (f *faultRun) holder(stop func(*faultRelay)) *faultRelay {
	f.t.Helper()
	a := f.up()
	f.await(200)
	f.up()
	stop(a)
	begin := time.Now()
	f.more(2*f.inFlight(), f.now()) // which only the second one can deliver
	f.await(f.inFlight() + 1)       // what the first one had in flight still counts
	took := time.Since(begin)
	f.t.Logf("the other relay delivers after %s", took.Round(10*time.Millisecond))
	f.check("taken over")
	return a
}
