package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// await waits until so many more entries have been decided, or all there are.
func (f *faultRun) await(more int) {
	f.t.Helper()
	decided := func() int { return f.dest.Counts().Distinct + len(f.undelivered) }
	want := min(decided()+more, len(f.rows))
	f.eventuallyDecided(fmt.Sprintf("%d entries delivered", want), func() bool { return decided() >= want })
}

// eventuallyDecided is eventually for what is also true once entries are undelivered:
// they may become it while it waits.
func (f *faultRun) eventuallyDecided(what string, ok func() bool) {
	f.t.Helper()
	asked := time.Now()
	f.eventually(patient, what, func() bool {
		if time.Since(asked) > 2*time.Second {
			f.undelivered, asked = f.deadList(), time.Now()
		}
		return ok()
	})
}

// some is a random number of the entries, so that a fault falls into the work.
func (f *faultRun) some(share int) int { return 1 + f.random.IntN(max(1, f.c.entries/share)) }

// eventually is the function of that name, and shows what the relays say if it fails.
func (f *faultRun) eventually(within time.Duration, what string, ok func() bool) {
	f.t.Helper()
	held := false
	defer func() {
		if held {
			return
		}
		for _, r := range f.relays {
			_ = r.cmd.Process.Kill()
			<-r.waited
			f.t.Logf("relay:\n%s", tail(r.stderr.String(), 4000))
		}
	}()
	eventually(f.t, within, what, ok)
	held = true
}

// notify triggers a poll. It may fail: the faults are not over.
func (f *faultRun) notify(r *faultRelay, ids ...string) {
	c, err := trigger.NewClient(trigger.ClientOptions{URL: r.url})
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Second)
	defer cancel()
	_ = c.Notify(ctx, ids)
}

// fresh adds an entry and sees it through every relay that runs.
func (f *faultRun) fresh() {
	f.t.Helper()
	for _, r := range slices.Clone(f.relays) {
		f.more(1, f.now())
		id := f.order[len(f.order)-1]
		var notified time.Time
		f.eventually(patient, "a fresh entry through", func() bool {
			if time.Since(notified) > 3*time.Second {
				notified = time.Now()
				f.notify(r, id)
			}
			return f.dest.Times(id) > 0
		})
	}
}
