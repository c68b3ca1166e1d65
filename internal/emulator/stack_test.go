package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/plugintest"
)

// composed returns the value that docker-compose.yml gives a variable.
func composed(t *testing.T, name string) string {
	t.Helper()
	file, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^ +` + name + `: (?:&\S+ )?"?([^"\s]+)"?(?: #.*)?$`).FindSubmatch(file)
	if m == nil {
		t.Fatalf("docker-compose.yml does not set %s", name)
	}
	return string(m[1])
}

// startRelay runs the relay with the settings of docker-compose.yml, but a ledger
// in a file, and returns where it takes triggers.
func startRelay(t *testing.T, e *emulator) (url string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(binaries, "relay"), "serve", "--listen", "127.0.0.1:0", "--ops-listen", "off",
		"--ledger", "bolt:"+filepath.Join(t.TempDir(), "relay.db"))
	cmd.Env = []string{
		"KONG_ADMIN_API=" + e.admin, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=" + e.aws,
		"RELAY_TRIGGER_SECRET=" + composed(t, "CLOUDTRAIL_RELAY_SECRET"),
	}
	for _, name := range []string{"RELAY_LOG_GROUP", "REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RELAY_SKIP_OWN_READS", "RELAY_OBJECTS"} {
		cmd.Env = append(cmd.Env, name+"="+composed(t, name))
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, read := make(chan string, 1), make(chan struct{})
	ready := regexp.MustCompile(`"trigger listener ready","addr":"([^"]+)"`)
	go func() {
		defer close(read)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if m := ready.FindStringSubmatch(lines.Text()); m != nil {
				addr <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	select {
	case a := <-addr:
		return "http://" + a
	case <-read:
		t.Fatal("the relay ended")
	case <-time.After(patience):
		t.Fatal("the relay does not listen")
	}
	return ""
}

// TestStack is the local stack without its containers: an Admin API as of open
// source Kong, the emulator before it, the relay, and the plugin, whose host
// stands in for Kong. A request is on the page soon after its answer, with what it
// changed, and the relay's own reads are not.
func TestStack(t *testing.T) {
	upstream := httptest.NewServer(kongtest.New(kongtest.Options{AuditOff: true}))
	t.Cleanup(upstream.Close)
	e := start(t, "--upstream", upstream.URL)
	relay := startRelay(t, e)

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "stack") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	host, err := plugintest.Start(ctx, filepath.Join(binaries, "cloudtrail-relay"), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	instance, err := host.Instance(ctx, map[string]any{
		"relay_url": relay, "secret": composed(t, "CLOUDTRAIL_RELAY_SECRET"), "timeout_ms": 30_000,
	})
	if err != nil {
		t.Fatal(err)
	}

	request := func(method, path, body string) (page string, took time.Duration) {
		t.Helper()
		resp, _ := do(t, method, e.admin+path, body, "Content-Type", "application/json")
		answered := time.Now()
		id := resp.Header.Get("X-Kong-Admin-Request-ID")
		if err := host.Log(ctx, instance, plugintest.Event{Headers: map[string]string{"X-Kong-Admin-Request-ID": id}}); err != nil {
			t.Fatal(err)
		}
		page = e.awaitPage(id)
		took = time.Since(answered)
		t.Logf("on the page %d ms after the answer", took.Milliseconds())
		if !strings.Contains(page, method+path) {
			t.Errorf("the page shows %s under another name", id)
		}
		return page, took
	}
	// The relay waits 2 s for what a write changed. If the machine stood still for as long, the
	// test goes on with the next entity.
	const waits = 2 * time.Second
	var page string
	for n := 0; ; n++ {
		name := fmt.Sprint("orders-", n)
		_, first := request(http.MethodPost, "/services", `{"name":"`+name+`","path":"/a"}`)
		var second time.Duration
		page, second = request(http.MethodPatch, "/services/"+name, `{"path":"/b"}`)
		if strings.Contains(page, "path: <del>&#34;/a&#34;</del> → <ins>&#34;/b&#34;</ins>") {
			break
		}
		if max(first, second) < waits || n == 10 {
			t.Fatalf("the page does not show what changed: %s", page)
		}
	}
	if strings.Contains(page, "GET/audit/requests") {
		t.Error("the page shows the relay's own reads")
	}
	if lines := host.Lines(); len(lines) > 0 {
		t.Errorf("the plugin complains: %v", lines)
	}
}

// awaitPage polls the page until it shows an id.
func (e *emulator) awaitPage(id string) string {
	e.tb.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, page := do(e.tb, http.MethodGet, e.aws+"/", ""); strings.Contains(page, id) {
			return page
		}
		select {
		case <-tick.C:
		case <-deadline:
			e.tb.Fatalf("%s is not on the page", id)
		}
	}
}
