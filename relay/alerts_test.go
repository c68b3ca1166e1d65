package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// prometheus is one that scrapes a relay every second and evaluates the alert rules that
// are shipped, without their patience.
type prometheus struct {
	t   *testing.T
	url string
}

func startPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	dir, listen := t.TempDir(), "127.0.0.1:"+redistest.FreePort(t)
	rules, err := os.ReadFile("monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("alerts.yaml", regexp.MustCompile(`for: \w+`).ReplaceAllString(string(rules), "for: 1s"))
	file := write("prometheus.yaml", `global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [alerts.yaml]
scrape_configs: [{job_name: relay, static_configs: [{targets: ["`+target+`"]}]}]
`)
	cmd := exec.Command("prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+listen, "--log.level=error")
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus:\n%s", tail(said.String(), 2000))
		}
	})
	return &prometheus{t, "http://" + listen}
}

// firing returns the names of the alerts that fire.
func (p *prometheus) firing() (names []string) {
	resp, err := http.Get(p.url + "/api/v1/alerts")
	if err != nil {
		return nil // it starts
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string            `json:"state"`
				Labels map[string]string `json:"labels"`
			} `json:"alerts"`
		} `json:"data"`
	}
	if err := json.UnmarshalRead(resp.Body, &answer); err != nil {
		return nil
	}
	for _, a := range answer.Data.Alerts {
		if a.State == "firing" {
			names = append(names, a.Labels["alertname"])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// await waits until all of these alerts fire, and none of the others but those that
// always do.
func (p *prometheus) await(what string, want ...string) {
	p.t.Helper()
	want = append(want, "AuditCertificateExpires", "AuditSecretOld") // of certificates of an hour and a secret of two years
	slices.Sort(want)
	var last []string
	defer func() {
		if p.t.Failed() {
			p.t.Logf("%s: %v fire, want %v", what, last, want)
		}
	}()
	eventually(p.t, patient, what, func() bool {
		last = p.firing()
		return slices.Equal(last, want)
	})
}

// Every alert fires in a Prometheus while the fault lasts that it is for, and no longer.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("prometheus"); err != nil || !redistest.Real() {
		t.Log("needs prometheus and a redis-server")
		return
	}
	secret, other := "whsec_"+strings.Repeat("QUFB", 10), "whsec_"+strings.Repeat("QkJC", 10)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * 365 * 24 * time.Hour)
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
	listen, ops := "127.0.0.1:"+redistest.FreePort(t), "127.0.0.1:"+redistest.FreePort(t)
	p := startPrometheus(t, ops)
	w := newNamedWorld(t, []string{"RELAY_TRIGGER_SECRET_FILE=" + file, "RELAY_RETRY_FOR=1s"})
	var firing []string
	eventually(t, patient, "the alert for no relay", func() bool {
		firing = p.firing()
		return slices.Equal(firing, []string{"AuditRelayDown"})
	})

	// Another relay made the last complete pass four hours ago. Kong has an entry from half
	// of its retention ago, and the destination is down.
	w.marks(audit.Marks{Completed: time.Now().Add(-4 * time.Hour).Unix()})
	w.kong.Add(row("old", time.Now().Add(-16*24*time.Hour)))
	w.awsFront.set(frontMode{refused: true})
	relay := w.start([]string{"RELAY_LISTEN=" + listen, "RELAY_OPS_LISTEN=" + ops}, "serve")
	w.url, w.ops, w.relay = "http://"+listen, "http://"+ops, relay
	defer func() {
		if t.Failed() {
			t.Logf("relay:\n%s", tail(relay.stderr.String(), 6000))
		}
	}()
	notify := func(secret string, ids ...string) { _ = w.notify(secret, ids...) }
	asked := time.Time{}
	again := func(do func()) func() bool { // at most once a second
		return func() bool {
			if time.Since(asked) > time.Second {
				asked = time.Now()
				do()
			}
			return false
		}
	}
	retry := again(func() { notify(secret) }) // a trigger brings the next try forward
	eventually(t, patient, "failures", func() bool {
		retry()
		return len(w.lines("dependency is failing", "destination")) == 1 && slices.Contains(p.firing(), "AuditPassesFailing")
	})
	p.await("nothing is delivered", "AuditDependencyFailing", "AuditEntriesUndelivered", "AuditEntriesNearKongsRetention", "AuditPassesFailing", "AuditNoCompletePass")

	w.awsFront.set(w.good)
	eventually(t, patient, "the end", func() bool {
		retry()
		return slices.Equal(p.firing(), []string{"AuditCertificateExpires", "AuditSecretOld"})
	})

	// One fault of each other kind.
	w.trail.SetFaults(cloudtrailtest.Faults{IDs: map[string]string{"bad": "InvalidData"}})
	w.kong.Add(row("bad", time.Now()))
	redisDo(t, w.redis.Addr, "CONFIG", "SET", "maxmemory-policy", "volatile-lru")
	notify(secret, "bad", "neverrecorded")
	wrong := again(func() { notify(other) })
	eventually(t, patient, "refused triggers", func() bool {
		wrong()
		return slices.Contains(p.firing(), "AuditTriggersRefused")
	})
	p.await("the others", "AuditDependencyFailing", "AuditDeadLetters", "AuditLedgerMayForget", "AuditTriggersRefused", "AuditNotRecording", "AuditEntriesMissing")
}

// marks writes marks into the ledger of a world that no relay uses yet.
func (w *namedWorld) marks(m audit.Marks) {
	w.tb.Helper()
	lease, err := w.ledger().Acquire(w.tb.Context(), false)
	if err == nil {
		err = lease.SetMarks(w.tb.Context(), m)
	}
	if err == nil {
		_, err = lease.Release(w.tb.Context())
	}
	if err != nil {
		w.tb.Fatal(err)
	}
}
