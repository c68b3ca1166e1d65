package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/plugintest"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// Whatever the relay does, the first event says so in Kong's log, the others take
// as long as with a good relay, and the process stays as small. When the relay is
// back, it is triggered.
func TestRelayInTrouble(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(10 * time.Second):
		case <-r.Context().Done():
		}
	}
	for name, bad := range map[string]http.HandlerFunc{
		"down": nil,
		"slow": hang,
		"refusing": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
		},
		"garbage": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "\x00\xff garbage\r\n\r\n")
			_ = conn.Close()
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := "127.0.0.1:" + redistest.FreePort(t) // nobody else listens there in between
			var s *http.Server
			if bad != nil {
				s = listenAndServe(t, addr, bad)
			}
			h := startPlugin(t, "cloudtrail-relay")
			timeout := 30_000 // for a busy machine
			if name == "slow" {
				timeout = 1000
			}
			i := instance(t, h, map[string]any{"relay_url": "http://" + addr, "secret": secret, "timeout_ms": timeout, "queue_size": 1000})
			start := time.Now()
			logEvent(t, h, i, answered("first"))
			// That relay's answer begins with 200, and nothing else counts. An event waits for 5 s at most.
			if lines := h.Lines(); (len(lines) == 1) != (name != "endless") && time.Since(start) < 5*time.Second {
				t.Errorf("Kong's log after the first event: %q", lines)
			}
			const events = 2000
			start = time.Now()
			for n := range events {
				logEvent(t, h, i, answered("id"+strconv.Itoa(n)))
				// The handler itself waits for nothing: with a timeout for each event it would take ten minutes.
				if took := time.Since(start); took > 30*time.Second {
					t.Fatalf("%d events took %v", n+1, took)
				}
			}
			if kb := residentKB(t, h.PID()); kb > 100_000 {
				t.Errorf("%d kB resident", kb)
			}

			if s != nil {
				_ = s.Close()
			}
			r := &relay{ids: map[string]bool{}, news: make(chan struct{}, 1)}
			listenAndServe(t, addr, r.handler())
			logEvent(t, h, i, answered("recovered"))
			r.wait(t, 1, 1)
			if name == "endless" {
				return
			}
			if lines := h.Lines(); len(lines) != 1 || !strings.Contains(lines[0].Text, "failed: triggering the relay") || strings.Contains(lines[0].Text, secret) {
				t.Errorf("Kong's log: %q", lines)
			}
		})
	}
}

// listenAndServe serves until the test ends.
func listenAndServe(t *testing.T, addr string, h http.Handler) *http.Server {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func residentKB(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmRSS in %s", status)
	}
	kb, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kb
}

// A change of configuration makes new instances and closes the old ones; what
// those announced goes out all the same.
func TestChangeOfConfigurationLosesNothing(t *testing.T) {
	r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
	const changes = 50
	for n := range changes {
		i := instance(t, h, r.config(map[string]any{"min_interval_ms": 200 + n}))
		logEvent(t, h, i, answered(fmt.Sprintf("a%d", n)))
		logEvent(t, h, i, answered(fmt.Sprintf("b%d", n)))
		if err := h.CloseInstance(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		if err := h.Log(t.Context(), i, answered("late")); err == nil {
			t.Error("a closed instance takes events")
		}
	}
	r.wait(t, 2*changes, changes)
}

// ending runs a test with a process that ends until it shows something. A process has a little time to send
// what is left. If it was too late and took that time, it may have got none of it on a busy machine, and
// attempt returns false.
func ending(t *testing.T, attempt func(t *testing.T) bool) {
	t.Helper()
	for range 20 {
		if attempt(t) {
			return
		}
	}
	t.Error("no process had the time to send what was left")
}

// flushed reports whether the relay notes as many ids of a process that ended after took. If it does not, it is
// a failure unless the process took its whole time, enough.
func (r *relay) flushed(t *testing.T, ids int, took, enough time.Duration) bool {
	t.Helper()
	if took < enough {
		r.wait(t, ids, 2)
		return true
	}
	if r.within(2*time.Second, ids, 2) {
		return true
	}
	t.Logf("too late: ended after %v", took)
	return false
}

func TestTerminateFlushes(t *testing.T) {
	ending(t, func(t *testing.T) bool {
		r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
		i := instance(t, h, r.config(map[string]any{"min_interval_ms": 60000}))
		logEvent(t, h, i, answered("first"))
		r.wait(t, 1, 1)
		for n := range 5 {
			logEvent(t, h, i, answered("later"+strconv.Itoa(n)))
		}
		took, err := h.Terminate(t.Context())
		if err != nil {
			t.Errorf("%v: %s", err, h.Stderr())
		}
		return r.flushed(t, 6, took, 40*time.Millisecond) // flushFor
	})
}

// Kong may have been given the end of an event before the plugin has its id. Such an
// id is sent all the same.
func TestTerminateAwaitsIDs(t *testing.T) {
	ending(t, func(t *testing.T) bool {
		r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
		i := instance(t, h, r.config(map[string]any{"min_interval_ms": 60000}))
		logEvent(t, h, i, answered("first"))
		r.wait(t, 1, 1)
		var workers sync.WaitGroup
		var handled atomic.Int64
		enough := make(chan struct{})
		for w := range 16 {
			workers.Go(func() {
				for n := 0; h.Log(t.Context(), i, answered(fmt.Sprintf("w%dn%d", w, n))) == nil; n++ {
					if handled.Add(1) == 200 {
						close(enough)
					}
				}
			})
		}
		<-enough
		took, err := h.Terminate(t.Context())
		if err != nil {
			t.Errorf("%v: %s", err, h.Stderr())
		}
		workers.Wait()
		return r.flushed(t, 1+int(handled.Load()), took, 10*time.Millisecond) // comingFor
	})
}

func TestTerminateDoesNotWaitForASlowRelay(t *testing.T) {
	r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
	i, held := instance(t, h, r.config(nil)), r.hold()
	defer close(held.open)
	var event sync.WaitGroup
	event.Go(func() { _ = h.Log(t.Context(), i, answered("a")) }) // whose connection may end first
	<-held.arrived
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second) // less than the timeout of one attempt
	defer cancel()
	if _, err := h.Terminate(ctx); err != nil {
		t.Error(err)
	}
	_ = h.Close()
	event.Wait()
}

func TestWrongConfigurationIsReportedOnce(t *testing.T) {
	h := startPlugin(t, "cloudtrail-relay")
	seq := 0
	wrong := map[string]any{"relay_url": "relay:8080", "secret": "hidden", "queue_size": -1}
	mended := newRelay(t).config(nil)
	for _, step := range []struct {
		entity, key string
		config      map[string]any
		lines       int // in all, after it
	}{
		{"one", "plugins:a", wrong, 1},
		{"one", "plugins:a", wrong, 1}, // another entity has changed
		{"two", "plugins:a", wrong, 2},
		{"one", "plugins:a", map[string]any{"relay_url": "relay:8080", "secret": "hidden", "queue_size": -1, "timeout_ms": 2000}, 3},
		{"one", "plugins:a", mended, 3},
		{"one", "plugins:a", wrong, 4},
		{"", "plugins:a", wrong, 5}, // as older releases tell entities apart
		{"", "plugins:b", wrong, 6},
	} {
		for range 4 { // workers
			config := map[string]any{"__seq__": seq, "__key__": step.key}
			if seq++; step.entity != "" {
				config["__plugin_id"] = step.entity
			}
			maps.Copy(config, step.config)
			i := instance(t, h, config)
			for range 5 {
				logEvent(t, h, i, answered("a"))
			}
		}
		if lines := h.Lines(); len(lines) != step.lines {
			t.Fatalf("%+v: Kong's log: %q", step, lines)
		}
	}
	for n, line := range h.Lines() {
		for _, want := range []string{"wrong configuration of cloudtrail-relay", "queue_size must be between 1 and 100000", "not http://host:port"} {
			if line.Level != "err" || !strings.Contains(line.Text, want) || strings.Contains(line.Text, "hidden") {
				t.Errorf("%+v does not say %q, or more", line, want)
			}
		}
		if n == 1 && !strings.Contains(line.Text, "id two") {
			t.Errorf("%q does not say whose it is", line.Text)
		}
	}
	if strings.Contains(h.Stderr(), "hidden") {
		t.Error("the secret is in the log")
	}
	// Types that the schema would have refused do not break the connection either.
	before := len(h.Lines())
	i := instance(t, h, map[string]any{"relay_url": []int{1}, "timeout_ms": "soon", "__plugin_id": 3})
	logEvent(t, h, i, answered("a"))
	if n := len(h.Lines()); n != before+1 {
		t.Errorf("%d lines", n-before)
	}
}

// What the process has written is still there once the process and its folder are gone: that is when every
// test looks for its secret in it.
func TestStandardErrorIsKept(t *testing.T) {
	const line = "a connection from Kong ended"
	dir, err := os.MkdirTemp("", "kong")
	if err != nil {
		t.Fatal(err)
	}
	h, err := plugintest.Start(t.Context(), built(t, "cloudtrail-relay"), dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", filepath.Join(dir, "cloudtrail-relay.socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{1, 0, 0, 0, 0xff}); err != nil { // no call
		t.Fatal(err)
	}
	begin := time.Now()
	for range time.Tick(5 * time.Millisecond) {
		if strings.Contains(h.Stderr(), line) {
			break
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("standard error: %s", h.Stderr())
		}
	}
	if err := errors.Join(h.Close(), os.RemoveAll(dir)); err != nil {
		t.Fatal(err)
	}
	if text := h.Stderr(); !strings.Contains(text, line) {
		t.Errorf("standard error at the end: %s", text)
	}
}

// A plugin whose parent was killed ends: Kong's next worker starts another one, and
// does not know this one.
func TestOrphanEnds(t *testing.T) {
	dir, err := os.MkdirTemp("", "kong")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	// The plugin holds this pipe's only other end once the parent is gone.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	worker := exec.Command("sh", "-c", `"$0" -kong-prefix "$1" & wait`, built(t, "cloudtrail-relay"), dir)
	worker.Stdout = w
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	every := time.NewTicker(5 * time.Millisecond)
	defer every.Stop()
	for deadline := time.After(30 * time.Second); ; {
		if _, err := os.Stat(filepath.Join(dir, "cloudtrail-relay.socket")); err == nil {
			break
		}
		select {
		case <-every.C:
		case <-deadline:
			t.Fatal("the plugin does not start")
		}
	}
	if err := worker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = worker.Wait()
	if err := r.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the plugin outlives its parent: %v", err)
	}
}
