package main

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// Rows that come late, or with the time of a clock that is behind, are found by
// what announced them: a trigger with their id, or one that names none.
func TestLateRowsAreLookedFor(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		late   time.Duration // after the trigger
		behind time.Duration // its timestamp
		blind  bool
	}{
		{"at once", 0, 0, false},
		{"clock behind", 200 * time.Millisecond, 20 * time.Second, false},
		{"far behind", 200 * time.Millisecond, 4 * time.Minute, false},
		{"late, no id", 3 * time.Second, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
			now := time.Now()
			w.kong.AddSeq(auditlog.Generate(1000, 3, auditlog.Mix{Plain: true, From: now.Add(-time.Hour), To: now}))
			_, url, ops := w.serve()
			eventually(t, patient, "the first pass", func() bool { return w.trail.Counts().Distinct == 1000 })
			// A tail that looks far back has just been made.
			notifyOnce(t, url)
			eventually(t, patient, "a tail", func() bool { return metric(t, ops, `passes_total{kind="tail",outcome="complete"}`) != "" })
			id := strings.Repeat("x", 32)
			// Kong writes the row when the first page is asked for that late. No slowness hides
			// it: a poll that was planned is made, however late.
			var notified atomic.Int64 // in milliseconds; there may be polls before the trigger
			var once sync.Once
			w.kong.Update(func(o *kongtest.Options) {
				o.OnPage = func(kongtest.Request) (none kongtest.Fault) {
					if at := notified.Load(); at > 0 && time.Since(time.UnixMilli(at)) >= tc.late {
						once.Do(func() {
							row := rows("x", 1, func(int) time.Time { return time.Now().Add(-tc.behind) })[0]
							row.RequestID = id
							w.kong.Add(row)
						})
					}
					return none
				}
			})
			if tc.blind {
				notified.Store(time.Now().UnixMilli())
				notifyOnce(t, url)
			} else { // a row that is delivered before its id is announced is not measured
				notifyOnce(t, url, id)
				notified.Store(time.Now().UnixMilli())
			}
			eventually(t, patient, "the late row", func() bool { return w.trail.Times(id) == 1 })
			if n := metric(t, ops, "announced_missing_total"); n != "0" {
				t.Errorf("%s ids counted as missing", n)
			}
			if tc.blind {
				return
			}
			// The relay measures once it has the answer, which is after the event was taken.
			eventually(t, patient, "one measured", func() bool { return metric(t, ops, "announced_to_accepted_seconds_count") == "1" })
			// A trigger that was held up, about what has been delivered.
			notifyOnce(t, url, id)
			if n := metric(t, ops, "announced_ids_waiting"); n != "0" {
				t.Errorf("%s ids are waited for, which were delivered", n)
			}
		})
	}
}

// A ledger that is emptied between two passes keeps no trigger from being taken:
// the pass that it brings begins the new one.
func TestTriggerAfterTheLedgerWasEmptied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	_, url, ops := w.serve()
	eventually(t, patient, "the first pass", func() bool { return metric(t, ops, `passes_total{kind="reconcile",outcome="complete"}`) == "1" })
	w.flush()
	id := adminRequest(t, w)
	notifyOnce(t, url, id)
	eventually(t, patient, "the event", func() bool { return w.trail.Times(id) == 1 })
}
