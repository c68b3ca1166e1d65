package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// SIGHUP does not end the relay, and a rotated file gets no more lines.
func TestRotatedFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	lines := func(name string) int {
		text, err := os.ReadFile(name)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return bytes.Count(text, []byte("\n"))
	}
	w.kong.Add(rows("a", 3, func(int) time.Time { return time.Now() })...)
	r, url, _ := w.serve("RELAY_DESTINATION=jsonl:" + path)
	eventually(t, patient, "the first pass", func() bool { return lines(path) == 3 })
	for i, signal := range []bool{true, false} {
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		if signal {
			if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			eventually(t, patient, "a new file", func() bool { _, err := os.Stat(path); return err == nil })
		} else if err := os.Remove(path + ".1"); err != nil {
			t.Fatal(err)
		}
		w.kong.Add(rows(string(rune('b'+i)), 4, func(int) time.Time { return time.Now() })...)
		notifyOnce(t, url)
		eventually(t, patient, "new lines in a new file", func() bool { return lines(path) == 4 })
	}
}

// Standard output carries events and nothing else.
func TestEventsOnStandardOutput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.Add(rows("a", 100, func(int) time.Time { return time.Now().Add(-time.Hour) })...)
	for _, args := range [][]string{{"once"}, {"once", "--json"}} {
		for _, destination := range []string{"jsonl:-", "jsonl:/dev/stdout"} {
			r := w.start([]string{"RELAY_DESTINATION=" + destination, "RELAY_LEDGER=bolt:" + t.TempDir() + "/ledger.db"}, args...)
			if code := r.wait(t); code != exitOK {
				t.Fatalf("%v ended with %d:\n%s", args, code, r.stderr.String())
			}
			n := 0
			for line := range strings.Lines(r.stdout.String()) {
				if n++; !strings.HasPrefix(line, `{"version":`) {
					t.Errorf("%v %s: %q is no event", args, destination, line)
				}
			}
			if n != 100 || !strings.Contains(r.stderr.String(), "100") {
				t.Errorf("%v: %d lines; standard error:\n%s", args, n, r.stderr.String())
			}
		}
	}
}

// What is not delivered is named, and counts as a difference until someone drops it.
func TestUndeliveredIsNotSilent(t *testing.T) {
	t.Parallel()
	list := rows("a", 100, func(i int) time.Time { return time.Now().Add(-time.Hour + time.Duration(i)*time.Second) })
	dead, deferred := list[50].RequestID, list[60].RequestID
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{Faults: cloudtrailtest.Faults{
		IDs: map[string]string{dead: "InvalidData", deferred: "InternalFailure"},
	}})
	w.env = append(w.env, "RELAY_RETRY_FOR=1s")
	w.kong.Add(list...)
	_, stderr := w.says(exitFailed, "once")
	contains(t, stderr, "1 entry rejected permanently: relay dead list", "relay: 1 entry not delivered, and deferred: ", "What to do: ")
	_, stderr = w.says(exitFailed, "once") // it is tried again first
	contains(t, stderr, "relay: 1 entry not delivered, and deferred: ")

	r := w.verify(exitDifference)
	if r.Dead.Count != 1 || r.Deferred.Count != 1 || r.CompleteThrough != time.Unix(list[50].RequestTimestamp-1, 0).UTC().Format(time.RFC3339) {
		t.Errorf("%+v", r)
	}
	w.trail.SetFaults(cloudtrailtest.Faults{})
	w.says(exitOK, "dead", "retry", deferred)
	w.verify(exitDifference)
	w.verify(exitOK, "--since", "1m") // of another time
	w.kong.Delete(dead)
	w.verify(exitDifference) // Kong has deleted it; it was still not delivered
	w.says(exitOK, "dead", "drop", dead, "--reason", "of no use")
	w.verify(exitOK)
}
