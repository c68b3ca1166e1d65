package main

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/verify"
)

// Commands that read the ledger work beside a relay whose ledger is a file, and show
// it to nobody who may not read that file.
func TestCommandsBesideARelayWithAFile(t *testing.T) {
	t.Parallel()
	at := time.Now().Add(-time.Hour)
	list := rows("d", 50, func(i int) time.Time { return at.Add(time.Duration(i) * time.Second) })
	dead := list[10].RequestID
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{Faults: cloudtrailtest.Faults{IDs: map[string]string{dead: "InvalidData"}}})
	file := t.TempDir() + "/ledger.db"
	w.env = append(w.env, "RELAY_LEDGER=bolt:"+file)
	w.kong.Add(list...)
	r, url, ops := w.serve()
	w.env = append(w.env, "RELAY_OPS_LISTEN="+strings.TrimPrefix(ops, "http://"))
	eventually(t, patient, "the first pass", func() bool { return metric(t, ops, `passes_total{kind="reconcile",outcome="complete"}`) == "1" })

	out, _ := w.says(exitOK, "dead", "list")
	contains(t, out, dead, "InvalidData")
	if found := w.undelivered(); len(found) != 1 {
		t.Errorf("%v", found)
	}
	out, _ = w.says(exitOK, "dead", "show", dead)
	contains(t, out, `"request_id": "`+dead)
	_, stderr := w.says(exitFailed, "dead", "show", "nothing")
	contains(t, stderr, "nothing deferred has the id")
	out, _ = w.says(exitOK, "outages")
	contains(t, out, "no outages")
	out, _ = w.says(exitDifference, "verify", "--json")
	var report verify.Report
	if err := decode([]byte(out), &report); err != nil || report.Delivered != 49 || report.Dead.Count != 1 || report.Missing.Count != 0 {
		t.Errorf("%v: %s", err, out)
	}
	out, _ = w.says(exitOK, "verify", "--since", "1m") // the dead letter is older
	contains(t, out, "No difference")
	out, _ = w.says(exitFailed, "dead", "retry", "--all")
	contains(t, out, dead+": InvalidData", "0 delivered, 1 not delivered")
	w.trail.SetFaults(cloudtrailtest.Faults{})
	_, stderr = w.says(exitFailed, "dead", "retry", "nothing")
	contains(t, stderr, "nothing deferred has the id")
	out, _ = w.says(exitOK, "dead", "retry", dead)
	contains(t, out, "1 delivered, 0 not delivered")
	eventually(t, patient, "the metric", func() bool { return metric(t, ops, "dead_letters") == "0" })
	if w.trail.Times(dead) != 1 {
		t.Error("not delivered, or twice")
	}
	another := row("another", time.Now())
	w.trail.SetFaults(cloudtrailtest.Faults{IDs: map[string]string{"another": "InvalidData"}})
	w.kong.Add(another)
	notifyOnce(t, url, "another")
	eventually(t, patient, "another dead letter", func() bool { return metric(t, ops, "dead_letters") == "1" })
	out, _ = w.says(exitOK, "dead", "drop", "--code", "InvalidData", "--reason", "a test entry")
	contains(t, out, "1 dropped")
	out, _ = w.says(exitOK, "dead", "list")
	contains(t, out, "no dead letters")
	eventually(t, patient, "the reason in the log", func() bool { return strings.Contains(r.stderr.String(), "a test entry") })

	key := file + ".key"
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	resp, err := http.Post(ops+"/ledger/command", "application/json", strings.NewReader(`["relay","dead","list"]`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without the key: %s", resp.Status)
	}
	if err := os.WriteFile(key, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr = w.says(exitFailed, "dead", "list")
	contains(t, stderr, "the key beside the ledger's file is asked for")
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait(t)
	if _, err := os.Stat(key); !os.IsNotExist(err) {
		t.Errorf("the key is left behind: %v", err)
	}
}

// What a pass that is under way still delivers is not a difference.
func TestVerifyDuringAPass(t *testing.T) {
	t.Parallel()
	const n = 40_000
	at := time.Now().Add(-2 * time.Hour)
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.Add(rows("d", n, func(i int) time.Time { return at.Add(time.Duration(i) * time.Millisecond) })...)
	_, _, ops := w.serve("RELAY_PUT_RATE=1") // nearly seven minutes' work: more than is put while verify looks, however slowly
	eventually(t, patient, "puts", func() bool {
		return metric(t, ops, "passes_running") == "1" && metric(t, ops, "entries_read_total") != ""
	})
	report := w.verifyUnlessFailing()
	if report.OnTheWay == 0 || report.OnTheWay+report.Delivered != n {
		t.Errorf("%+v", report)
	}
	if report.CompleteThrough >= at.Add(time.Minute).UTC().Format(time.RFC3339) {
		t.Errorf("complete through %s", report.CompleteThrough)
	}
}

// A repair works beside a relay whose ledger is a file, through that relay.
func TestRepairBesideARelayWithAFile(t *testing.T) {
	t.Parallel()
	at := time.Now().Add(-time.Hour)
	list := rows("d", 50, func(i int) time.Time { return at.Add(time.Duration(i) * time.Second) })
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	dir := t.TempDir()
	file := dir + "/audit.jsonl"
	w.env = append(w.env, "RELAY_LEDGER=bolt:"+dir+"/ledger.db", "RELAY_DESTINATION=jsonl:"+file)
	w.kong.Add(list...)
	_, _, ops := w.serve()
	w.env = append(w.env, "RELAY_OPS_LISTEN="+strings.TrimPrefix(ops, "http://"))
	eventually(t, patient, "the first pass", func() bool { return metric(t, ops, `passes_total{kind="reconcile",outcome="complete"}`) == "1" })
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(file, []byte(rest), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := w.verify(exitDifference); r.Destination.Missing.Count != 1 {
		t.Errorf("%+v", r.Destination)
	}
	if r := w.verify(exitOK, "--repair"); r.Repaired == nil || r.Repaired.Delivered != 1 || !r.Repaired.Repaired {
		t.Errorf("%+v", r.Repaired)
	}
	w.verify(exitOK)
}

// What a relay prints of a command that it runs for another process goes to that process,
// wherever the relay's events go.
func TestCommandsBesideARelayThatPrintsEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.env = append(w.env, "RELAY_LEDGER=bolt:"+t.TempDir()+"/ledger.db", "RELAY_DESTINATION=jsonl:-")
	w.kong.Add(rows("d", 50, func(i int) time.Time { return time.Now().Add(-time.Hour) })...)
	r, _, ops := w.serve()
	w.env = append(w.env, "RELAY_OPS_LISTEN="+strings.TrimPrefix(ops, "http://"))
	eventually(t, patient, "the first pass", func() bool { return metric(t, ops, `passes_total{kind="reconcile",outcome="complete"}`) == "1" })

	if report := w.verify(exitOK, "--repair"); report.Delivered != 50 {
		t.Errorf("%+v", report)
	}
	out, _ := w.says(exitOK, "dead", "retry", "--all")
	contains(t, out, "0 delivered, 0 not delivered")
	printed := func() int { return strings.Count(r.stdout.String(), "\n") }
	eventually(t, patient, "all events", func() bool { return printed() >= 50 })
	// Whatever it printed after them comes before the end.
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait(t)
	if n := printed(); n != 50 {
		t.Errorf("the relay has printed %d lines for 50 events", n)
	}
}

// What a pass delivers while verify reads Kong is looked for at the destination as well.
func TestVerifyAsksForWhatAPassDelivers(t *testing.T) {
	t.Parallel()
	const n = 3000
	at := time.Now().Add(-time.Hour)
	w, logs := newLogsWorld(t, kongtest.Options{SkipReads: true}, cloudwatchtest.Options{ReadsPerSecond: -1, Faults: cloudwatchtest.Faults{Delay: 2 * time.Second}})
	w.kong.Add(rows("d", n, func(i int) time.Time { return at.Add(time.Duration(i) * time.Millisecond) })...)
	pass := w.start(w.env, "once")
	eventually(t, patient, "a put", func() bool { return logs.Counts().Calls > 0 })
	report := w.verifyUnlessFailing()
	pass.wait(t)
	if d := report.Destination; report.Delivered+report.OnTheWay != n || d.Confirmed+d.NotDue != report.Delivered {
		t.Errorf("%+v, %+v", report, d)
	}
}
