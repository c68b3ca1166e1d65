package main

import (
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// What is not due yet is a difference once passes fail: an auditor who is told that all is
// well must not wait for a schedule that delivers nothing.
func TestVerifyWhilePassesFail(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.askable()
	now := time.Now()
	w.kong.Add(rows("a", 50, func(i int) time.Time { return now.Add(-20*time.Minute - time.Duration(i)*time.Minute) })...)
	w.once()
	w.kong.Add(rows("b", 5, func(i int) time.Time { return now.Add(-time.Duration(i) * time.Second) })...)
	if r := w.verify(exitOK); r.NotDue != 5 || r.Failing != "" {
		t.Errorf("before the failure: %+v", r)
	}

	w.trail.SetFaults(cloudtrailtest.Faults{Calls: map[string]float64{"AccessDeniedException": 1}})
	w.says(exitFailed, "once")
	r := w.verify(exitDifference)
	if r.NotDue != 5 || r.Missing.Count != 0 || !strings.Contains(r.Failing, "asses have been failing since") {
		t.Errorf("while passes fail: %+v", r)
	}
	if stdout, _ := w.says(exitDifference, "verify", "--grace", "0s"); !strings.Contains(stdout, "5 entries not delivered, since passes have been failing") {
		t.Error(stdout)
	}
	if stdout, _ := w.says(exitFailed, "status"); !strings.Contains(stdout, "asses have been failing since") {
		t.Error(stdout)
	}

	_, _, ops := w.serve()
	w.env = append(w.env, "RELAY_OPS_LISTEN="+strings.TrimPrefix(ops, "http://"))
	eventually(t, patient, "the outage is stored", func() bool {
		stdout, _ := w.says(exitOK, "outages", "--json")
		return strings.Contains(stdout, "destination")
	})
	if r = w.verify(exitDifference); !strings.Contains(r.Failing, "destination has been failing since") {
		t.Errorf("beside a relay whose passes fail: %+v", r)
	}

	w.trail.SetFaults(cloudtrailtest.Faults{})
	eventually(t, patient, "all is delivered", func() bool { return len(w.lost()) == 0 })
	if r = w.verifyUnlessFailing(); r.NotDue != 0 {
		t.Errorf("after the failure: %+v", r)
	}
}

// The first pass of all fails in the middle: what it did not get to is due.
func TestVerifyAfterAFirstPassThatFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	now := time.Now()
	refused := map[string]string{}
	list := rows("a", 600, func(i int) time.Time { return now.Add(-2*time.Minute + time.Duration(i)*100*time.Millisecond) })
	for i := 400; i < len(list); i += 2 {
		refused[list[i].RequestID] = "InvalidRecipient" // which no entry is rejected for, whatever is accepted beside it
	}
	w.kong.Add(list...)
	w.trail.SetFaults(cloudtrailtest.Faults{IDs: refused})
	w.says(exitFailed, "once")
	if r := w.verify(exitDifference); r.Failing == "" || r.NotDue > 0 || r.Missing.Count < len(refused) {
		t.Errorf("%+v", r)
	}
	w.trail.SetFaults(cloudtrailtest.Faults{})
	w.once()
	w.verify(exitOK)
	w.expectAll(0)
}
