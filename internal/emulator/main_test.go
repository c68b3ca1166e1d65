package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

var binaries string // the folder of the built programs

// patience is how long a test waits for what comes at once on an idle machine.
const patience = time.Minute

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	dir, err := os.MkdirTemp("", "emulator-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer os.RemoveAll(dir)
	binaries = dir
	for name, pkg := range map[string]string{"emulator": ".", "relay": "../../relay", "cloudtrail-relay": "../../plugin"} {
		out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "building %s: %v\n%s", name, err, out)
			return
		}
	}
	code = m.Run()
}

// emulator is the built program, running.
type emulator struct {
	tb         testing.TB
	cmd        *exec.Cmd
	aws, admin string // URLs
	exited     chan error

	mu  sync.Mutex
	log strings.Builder
}

var listening = regexp.MustCompile(`msg=listening name=(\w+) addr=(\S+)`)

// start runs the emulator on free ports.
func start(tb testing.TB, args ...string) *emulator {
	tb.Helper()
	args = append([]string{"--admin-listen", "127.0.0.1:0", "--aws-listen", "127.0.0.1:0", "--log-level", "debug"}, args...)
	e := &emulator{tb: tb, cmd: exec.Command(filepath.Join(binaries, "emulator"), args...), exited: make(chan error, 1)}
	e.cmd.Env = []string{"EMULATOR_ROW_DELAY=20ms", "EMULATOR_ROW_DELAY_MAX=50ms"}
	stderr, err := e.cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	addrs := make(chan [2]string, 2)
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			e.mu.Lock()
			e.log.WriteString(lines.Text() + "\n")
			e.mu.Unlock()
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				addrs <- [2]string{m[1], "http://" + m[2]}
			}
		}
		e.exited <- e.cmd.Wait()
		close(e.exited)
	}()
	tb.Cleanup(func() {
		_ = e.cmd.Process.Kill()
		<-e.exited
	})
	for e.aws == "" || e.admin == "" {
		select {
		case a := <-addrs:
			if a[0] == "admin" {
				e.admin = a[1]
			} else {
				e.aws = a[1]
			}
		case <-time.After(patience):
			tb.Fatalf("the emulator does not listen:\n%s", e.logged())
		case err := <-e.exited:
			tb.Fatalf("the emulator ended: %v\n%s", err, e.logged())
		}
	}
	return e
}

func (e *emulator) logged() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log.String()
}

// stop sends SIGTERM and returns how the program ended.
func (e *emulator) stop() error {
	e.tb.Helper()
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		e.tb.Fatal(err)
	}
	select {
	case err := <-e.exited:
		return err
	case <-time.After(patience):
		return errors.New("still running")
	}
}

func do(tb testing.TB, method, url, body string, header ...string) (*http.Response, string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return resp, string(b)
}

type row struct {
	RequestID string  `json:"request_id"`
	Method    string  `json:"method"`
	Path      string  `json:"path"`
	Status    int     `json:"status"`
	Payload   *string `json:"payload"`
	Removed   *string `json:"removed_from_payload"`
}

// awaitRow polls the audit log for a row, which is written late.
func (e *emulator) awaitRow(id string) row {
	e.tb.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, body := do(e.tb, http.MethodGet, e.admin+"/audit/requests?size=1000", "")
		var page struct {
			Data []row `json:"data"`
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			e.tb.Fatal(err)
		}
		for _, r := range page.Data {
			if r.RequestID == id {
				return r
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			e.tb.Fatalf("no row with the id of the answer, %q", id)
		}
	}
}

func TestRecorder(t *testing.T) {
	var got struct {
		sync.Mutex
		uri, body string
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got.Lock()
		got.uri, got.body = r.RequestURI, string(b)
		got.Unlock()
		w.Header().Set("Server", "kong/3.9.1")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"id":"from Kong"}`)
	}))
	t.Cleanup(upstream.Close)
	e := start(t, "--upstream", upstream.URL)

	const body = `{"name":"orders","password":"hunter2"}`
	resp, answer := do(t, http.MethodPost, e.admin+"/services?tags=%ff", body, "Content-Type", "application/json")
	if resp.StatusCode != http.StatusCreated || answer != `{"id":"from Kong"}` {
		t.Errorf("answer %d %s", resp.StatusCode, answer)
	}
	got.Lock()
	if got.uri != "/services?tags=%ff" || got.body != body {
		t.Errorf("Kong got %s %s", got.uri, got.body)
	}
	got.Unlock()
	id := resp.Header.Get("X-Kong-Admin-Request-ID")
	if !regexp.MustCompile(`^[0-9A-Za-z]{32}$`).MatchString(id) {
		t.Fatalf("id %q", id)
	}
	r := e.awaitRow(id)
	if r.Method != http.MethodPost || r.Path != "/services?tags=%ff" || r.Status != http.StatusCreated {
		t.Errorf("row %+v", r)
	}
	if r.Payload == nil || *r.Payload != `{"name":"orders"}` || r.Removed == nil || *r.Removed != "password" {
		t.Errorf("payload %v without %v", r.Payload, r.Removed)
	}
	if log := e.logged(); !strings.Contains(log, "request_id="+id) || strings.Contains(log, "hunter2") || strings.Contains(log, "tags") {
		t.Errorf("log:\n%s", log)
	}
}

func TestToken(t *testing.T) {
	e := start(t, "--token", "development-only")
	if resp, _ := do(t, http.MethodGet, e.admin+"/services", ""); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without token: %d", resp.StatusCode)
	}
	if resp, _ := do(t, http.MethodGet, e.admin+"/services", "", "Kong-Admin-Token", "development-only"); resp.StatusCode != http.StatusOK {
		t.Errorf("with token: %d", resp.StatusCode)
	}
}

func TestHealth(t *testing.T) {
	e := start(t)
	check := func(address string) error {
		cmd := exec.Command(filepath.Join(binaries, "emulator"), "--health")
		cmd.Env = []string{"EMULATOR_AWS_LISTEN=" + address}
		return cmd.Run()
	}
	address := strings.TrimPrefix(e.aws, "http://")
	_, port, _ := strings.Cut(address, ":")
	for _, a := range []string{address, "0.0.0.0:" + port, ":" + port, "[::]:" + port, address + "\n"} {
		if err := check(a); err != nil {
			t.Errorf("asking %s: %v", a, err)
		}
	}
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	if err := check(address); err == nil {
		t.Error("healthy, though nothing listens")
	}
}

// TestStop: a request in flight is answered.
func TestStop(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		_, _ = io.WriteString(w, "late")
	}))
	t.Cleanup(upstream.Close)
	e := start(t, "--upstream", upstream.URL)

	answer := make(chan string, 1)
	go func() {
		resp, err := http.Get(e.admin + "/services")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	<-arrived
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for { // until it has begun to stop
		resp, err := http.Get(e.aws + "/healthz")
		if err != nil {
			break
		}
		_ = resp.Body.Close()
	}
	close(release)
	if got := <-answer; got != "late" {
		t.Errorf("the request in flight was answered %q", got)
	}
	select {
	case err := <-e.exited:
		if err != nil {
			t.Errorf("%v\n%s", err, e.logged())
		}
	case <-time.After(stopWithin + patience):
		t.Fatal("still running")
	}
	if log := e.logged(); !strings.Contains(log, "msg=stopped rows=1") {
		t.Errorf("log:\n%s", log)
	}
}

func TestWrongSettings(t *testing.T) {
	e := start(t)
	for _, c := range []struct {
		args []string
		env  string
		code int
		want string
	}{
		{[]string{"--row-delay", "soon"}, "", 2, "-row-delay"},
		{nil, "EMULATOR_ROW_DELAY=soon", 2, "EMULATOR_ROW_DELAY"},
		{[]string{"serve"}, "", 2, `"serve" is not a flag`},
		{[]string{"--upstream", "kong:8001"}, "", 2, "--upstream: parsing upstream: want http://host:port"},
		{[]string{"--aws-listen", "8010"}, "", 2, "--aws-listen: address 8010: missing port"},
		{[]string{"--health"}, "EMULATOR_AWS_LISTEN=8010", 2, "--aws-listen"},
		{nil, "EMULATOR_ADMIN_LISTEN=\n8001 ", 2, "--admin-listen: address 8001: missing port"},
		{[]string{"--aws-listen", strings.TrimPrefix(e.aws, "http://")}, "", 1, "address already in use"},
		{[]string{"--aws-listen", "127.0.0.1:0", "--admin-listen", strings.TrimPrefix(e.aws, "http://")}, "", 1, "listening for admin"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		cmd := exec.CommandContext(ctx, filepath.Join(binaries, "emulator"), c.args...)
		cmd.Env = []string{c.env}
		out, err := cmd.CombinedOutput()
		cancel()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != c.code || !strings.Contains(string(out), c.want) {
			t.Errorf("%v %s: %v\n%s", c.args, c.env, err, out)
		}
	}
}
