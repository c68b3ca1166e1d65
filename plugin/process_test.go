package main_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/certtest"
	"github.com/kong-cloudtrail/relay/internal/leaktest"
	"github.com/kong-cloudtrail/relay/internal/plugintest"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

const (
	idHeader = "X-Kong-Admin-Request-ID"
	secret   = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries.dir != "" {
		_ = os.RemoveAll(binaries.dir)
	}
	os.Exit(leaktest.Check(code))
}

// binaries are built once, by the first test that needs them.
var binaries struct {
	once sync.Once
	dir  string
	err  error
}

// built returns the path of the plugin ("cloudtrail-relay") or of the one that does nothing ("empty").
func built(t testing.TB, name string) string {
	t.Helper()
	binaries.once.Do(func() {
		if binaries.dir, binaries.err = os.MkdirTemp("", "plugin"); binaries.err != nil { // outlives the test
			return
		}
		for name, source := range map[string]string{"cloudtrail-relay": ".", "empty": "../internal/plugintest/empty"} {
			out, err := exec.Command("go", "build", "-o", filepath.Join(binaries.dir, name), source).CombinedOutput()
			if err != nil {
				binaries.err = fmt.Errorf("building %s: %w: %s", name, err, out)
			}
		}
	})
	if binaries.err != nil {
		t.Fatal(binaries.err)
	}
	return filepath.Join(binaries.dir, name)
}

func startPlugin(t testing.TB, name string) *plugintest.Host {
	t.Helper()
	dir, err := os.MkdirTemp("", "kong") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	h, err := plugintest.Start(t.Context(), built(t, name), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.Close()
		_ = os.RemoveAll(dir)
		if strings.Contains(h.Stderr(), secret) {
			t.Error("the process has written its secret")
		}
	})
	return h
}

func instance(t testing.TB, h *plugintest.Host, config map[string]any) int32 {
	t.Helper()
	i, err := h.Instance(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func logEvent(t testing.TB, h *plugintest.Host, instance int32, e plugintest.Event) {
	t.Helper()
	if err := h.Log(t.Context(), instance, e); err != nil {
		t.Error(err)
	}
}

func answered(id string) plugintest.Event {
	return plugintest.Event{Method: "POST", Path: "/admin-api/services", Headers: map[string]string{idHeader: id}}
}

// relay takes triggers as the real one does.
type relay struct {
	url string

	mu    sync.Mutex
	ids   map[string]bool
	calls int
	news  chan struct{}
	gate  *gate // holds triggers up, if there is one
}

// gate holds triggers up until open is closed.
type gate struct {
	arrived chan struct{} // receives when a trigger has come
	open    chan struct{}
}

func newRelay(t testing.TB) *relay {
	t.Helper()
	s := httptest.NewServer(nil)
	t.Cleanup(s.Close)
	r := &relay{url: s.URL, ids: map[string]bool{}, news: make(chan struct{}, 1)}
	s.Config.Handler = r.handler()
	return r
}

func (r *relay) handler() http.Handler {
	return trigger.NewHandler(trigger.Options{
		Secrets: func(string, bool) []string { return []string{secret} },
		Logger:  slog.New(slog.DiscardHandler),
		Notify: func(ctx context.Context, ids []string) error {
			r.mu.Lock()
			g := r.gate
			r.mu.Unlock()
			if g != nil {
				select {
				case g.arrived <- struct{}{}:
				default:
				}
				select {
				case <-g.open:
				case <-ctx.Done():
				}
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.calls++
			for _, id := range ids {
				r.ids[id] = true
			}
			select {
			case r.news <- struct{}{}:
			default:
			}
			return nil
		},
	})
}

// hold makes triggers wait at a gate.
func (r *relay) hold() *gate {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate = &gate{arrived: make(chan struct{}, 1), open: make(chan struct{})}
	return r.gate
}

func (r *relay) noted() (ids, calls int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ids), r.calls
}

// wait returns when the relay has noted as many ids in at least as many calls.
func (r *relay) wait(t testing.TB, ids, calls int) {
	t.Helper()
	if !r.within(30*time.Second, ids, calls) {
		gotIDs, gotCalls := r.noted()
		t.Fatalf("%d of %d ids, %d of %d calls", gotIDs, ids, gotCalls, calls)
	}
}

// within reports whether the relay notes as many ids in at least as many calls in a time.
func (r *relay) within(d time.Duration, ids, calls int) bool {
	deadline := time.After(d)
	for {
		if gotIDs, gotCalls := r.noted(); gotIDs >= ids && gotCalls >= calls {
			return true
		}
		select {
		case <-r.news:
		case <-deadline:
			return false
		}
	}
}

// config has a timeout that a relay on a busy machine keeps.
func (r *relay) config(more map[string]any) map[string]any {
	c := map[string]any{"relay_url": r.url, "secret": secret, "min_interval_ms": 100, "timeout_ms": 30_000}
	maps.Copy(c, more)
	return c
}

func TestTriggersAtOnce(t *testing.T) {
	r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
	i := instance(t, h, r.config(map[string]any{"min_interval_ms": 60_000}))
	logEvent(t, h, i, answered("first1"))
	r.wait(t, 1, 1) // which does not wait for as long as the interval
	if calls := h.Calls(); len(calls) != 1 || calls["kong.response.get_header"] != 1 {
		t.Errorf("calls of the PDK: %v", calls)
	}
}

func TestTriggersOnceForMany(t *testing.T) {
	r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
	start := time.Now()
	var workers sync.WaitGroup
	for w := range 8 { // each with a separate instance, as Kong's workers have
		i := instance(t, h, r.config(nil))
		workers.Go(func() {
			for n := range 125 {
				logEvent(t, h, i, answered(fmt.Sprintf("w%dn%d", w, n)))
			}
		})
	}
	workers.Wait()
	r.wait(t, 1000, 2)
	_, calls := r.noted()
	if most := int(time.Since(start)/(100*time.Millisecond)) + 2; calls > most {
		t.Errorf("%d triggers in %v", calls, time.Since(start))
	}
}

// Two workers of an older Kong may give their configurations the same number.
func TestInstancesUnderOneNumber(t *testing.T) {
	h := startPlugin(t, "cloudtrail-relay")
	var relays [2]*relay
	var ids [2]int32
	for n := range relays {
		relays[n] = newRelay(t)
		ids[n] = instance(t, h, relays[n].config(map[string]any{"__seq__": 1}))
	}
	for n, r := range relays {
		logEvent(t, h, ids[n], answered("a"))
		r.wait(t, 1, 1)
	}
	if err := h.CloseInstance(t.Context(), ids[1]); err != nil {
		t.Fatal(err)
	}
	logEvent(t, h, ids[0], answered("b"))
	relays[0].wait(t, 2, 2)
}

// ca_cert is trusted beside the system's authorities, not instead of them.
func TestTrustsACABesideTheSystems(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	t.Cleanup(s.Close)
	server := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, test := range map[string]struct{ system, caCert []byte }{
		"the system's": {server, certtest.New(t, nil).PEM},
		"ca_cert":      {certtest.New(t, nil).PEM, server},
	} {
		t.Run(name, func(t *testing.T) {
			r := &relay{url: s.URL, ids: map[string]bool{}, news: make(chan struct{}, 1)}
			s.Config.Handler = r.handler()
			file := filepath.Join(t.TempDir(), "system.pem")
			if err := os.WriteFile(file, test.system, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("SSL_CERT_FILE", file)
			t.Setenv("SSL_CERT_DIR", filepath.Dir(file))
			h := startPlugin(t, "cloudtrail-relay")
			logEvent(t, h, instance(t, h, r.config(map[string]any{"ca_cert": string(test.caCert)})), answered("a"))
			r.wait(t, 1, 1)
		})
	}
}

func TestTriggersALambdaFunction(t *testing.T) {
	got := make(chan []byte, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("X-Amz-Invocation-Type") != "Event" || !strings.Contains(r.Header.Get("Authorization"), "/eu-central-1/lambda/") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		select {
		case got <- body:
		default: // once more, for an answer that came too late
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer s.Close()
	t.Setenv("AWS_ENDPOINT_URL_LAMBDA", s.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	h := startPlugin(t, "cloudtrail-relay")
	logEvent(t, h, instance(t, h, map[string]any{"lambda_function": "arn:aws:lambda:eu-central-1:123456789012:function:relay", "timeout_ms": 30_000}), answered("a1"))
	select {
	case body := <-got:
		if b, err := trigger.ParseInvocation(body); err != nil || !slices.Equal(b.RequestIDs, []string{"a1"}) {
			t.Errorf("%s: %v", body, err)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("nothing was invoked; Kong's log: %q", h.Lines())
	}
}
