package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

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
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
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
		Secrets: func() []string { return []string{secret} },
		Logger:  slog.New(slog.DiscardHandler),
		Notify: func(_ context.Context, ids []string) error {
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

func (r *relay) noted() (ids, calls int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ids), r.calls
}

// wait returns when the relay has noted as many ids in at least as many calls.
func (r *relay) wait(t testing.TB, ids, calls int) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		gotIDs, gotCalls := r.noted()
		if gotIDs >= ids && gotCalls >= calls {
			return
		}
		select {
		case <-r.news:
		case <-deadline:
			t.Fatalf("%d of %d ids, %d of %d calls", gotIDs, ids, gotCalls, calls)
		}
	}
}

func (r *relay) config(more map[string]any) map[string]any {
	c := map[string]any{"relay_url": r.url, "secret": secret, "min_interval_ms": 100}
	for k, v := range more {
		c[k] = v
	}
	return c
}

func TestRingsAtOnce(t *testing.T) {
	r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
	i := instance(t, h, r.config(nil))
	start := time.Now()
	logEvent(t, h, i, answered("first1"))
	r.wait(t, 1, 1)
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
	if calls := h.Calls(); len(calls) != 1 || calls["kong.response.get_header"] != 1 {
		t.Errorf("calls of the PDK: %v", calls)
	}
}

func TestRingsOnceForMany(t *testing.T) {
	r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
	start := time.Now()
	var workers sync.WaitGroup
	for w := range 8 { // each with an instance of its own, as Kong's workers have
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
		t.Errorf("%d rings in %v", calls, time.Since(start))
	}
}

func TestWhatAnEventCanHold(t *testing.T) {
	odd := "a\xff\x00\r\n\"b"
	for name, test := range map[string]struct {
		event  plugintest.Event
		config map[string]any
		ids    int
		rings  bool
		calls  int
	}{
		"no id":                {plugintest.Event{Method: "GET"}, nil, 0, false, 1},
		"empty id":             {answered(""), nil, 0, true, 1},
		"odd id":               {answered(odd), nil, 0, true, 1},
		"two ids":              {answered("a, b"), nil, 0, true, 1},
		"long id":              {answered(strings.Repeat("a", 1<<20)), nil, 0, true, 1},
		"header fails":         {plugintest.Event{Fail: []string{"kong.response.get_header"}}, nil, 0, true, 1},
		"odd path":             {plugintest.Event{Path: "/a?q=" + odd, Headers: map[string]string{idHeader: "a"}}, nil, 1, true, 1},
		"odd path, filtered":   {plugintest.Event{Path: "/a?q=" + odd, Headers: map[string]string{idHeader: "a"}}, map[string]any{"ignore_paths": []string{"^/status"}}, 1, true, 2},
		"odd path, ignored":    {plugintest.Event{Path: "/status?q=\xff", Headers: map[string]string{idHeader: "a"}}, map[string]any{"ignore_paths": []string{"^/status"}}, 0, false, 2},
		"the Admin API's path": {plugintest.Event{Path: "/admin-api/status", UpstreamURI: "/status?a", Headers: map[string]string{idHeader: "a"}}, map[string]any{"ignore_paths": []string{"^/status"}}, 0, false, 2},
		"method":               {answered("a"), map[string]any{"methods": []string{"POST"}}, 1, true, 2},
		"other method":         {answered("a"), map[string]any{"methods": []string{"GET"}}, 0, false, 2},
		"empty lists":          {answered("a"), map[string]any{"methods": map[string]any{}, "ignore_paths": []string{}}, 1, true, 1},
		"serialize fails":      {plugintest.Event{Headers: map[string]string{idHeader: "a"}, Fail: []string{"kong.log.serialize"}}, map[string]any{"methods": []string{"GET"}}, 1, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, h := newRelay(t), startPlugin(t, "cloudtrail-relay")
			i := instance(t, h, r.config(test.config))
			err := h.Log(t.Context(), i, test.event)
			if (err != nil) != (test.event.Fail != nil) {
				t.Error(err)
			}
			if test.rings {
				r.wait(t, test.ids, 1)
			}
			// Another one, through an instance without filters, comes after it.
			logEvent(t, h, instance(t, h, r.config(nil)), answered("marker"))
			r.wait(t, test.ids+1, 1)
			ids, calls := r.noted()
			if ids != test.ids+1 || !test.rings && calls != 1 {
				t.Errorf("%d ids in %d rings", ids, calls)
			}
			total := 0
			for _, n := range h.Calls() {
				total += n
			}
			if total != test.calls+1 {
				t.Errorf("calls of the PDK: %v", h.Calls())
			}
		})
	}
}

// Whatever the relay does, an event takes as long as with a good one, and the
// process stays as small. When the relay is back, it is rung.
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
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := l.Addr().String()
			var s *http.Server
			if bad == nil {
				_ = l.Close()
			} else {
				s = &http.Server{Handler: bad}
				go func() { _ = s.Serve(l) }()
			}
			h := startPlugin(t, "cloudtrail-relay")
			i := instance(t, h, map[string]any{"relay_url": "http://" + addr, "secret": secret, "timeout_ms": 300, "queue_size": 1000})
			const events = 5000
			took := make([]time.Duration, events)
			for n := range took {
				start := time.Now()
				logEvent(t, h, i, answered("id"+strconv.Itoa(n)))
				took[n] = time.Since(start)
			}
			// The sender takes a while to see that its attempts fail; the event after that says so.
			every := time.NewTicker(20 * time.Millisecond)
			defer every.Stop()
			for name != "endless" && len(h.Lines()) == 0 { // that one's answer begins with 200, which is what counts
				<-every.C
				logEvent(t, h, i, answered("more"))
			}
			slices.Sort(took)
			// The handler does no input or output of its own: far below any timeout of the relay's.
			if p99 := took[events*99/100]; p99 > 100*time.Millisecond {
				t.Errorf("99th percentile %v, median %v", p99, took[events/2])
			}
			if kb := residentKB(t, h.PID()); kb > 100_000 {
				t.Errorf("%d kB resident", kb)
			}

			if s != nil {
				_ = s.Close()
			}
			if l, err = net.Listen("tcp", addr); err != nil {
				t.Fatal(err)
			}
			r := &relay{ids: map[string]bool{}, news: make(chan struct{}, 1)}
			s = &http.Server{Handler: r.handler()}
			go func() { _ = s.Serve(l) }()
			defer s.Close()
			logEvent(t, h, i, answered("recovered"))
			r.wait(t, 1, 1)
			if name == "endless" {
				return
			}
			if lines := h.Lines(); len(lines) != 1 || !strings.Contains(lines[0].Text, "cannot ring the relay") || strings.Contains(lines[0].Text, secret) {
				t.Errorf("Kong's log: %q", lines)
			}
		})
	}
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

func TestTerminateFlushes(t *testing.T) {
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
	r.wait(t, 6, 2)
	t.Logf("ended after %v", took)
}

func TestTerminateDoesNotWaitForASlowRelay(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer s.Close()
	h := startPlugin(t, "cloudtrail-relay")
	i := instance(t, h, map[string]any{"relay_url": s.URL, "secret": secret, "timeout_ms": 30000})
	logEvent(t, h, i, answered("a"))
	took, err := h.Terminate(t.Context())
	if err != nil || took > time.Second { // 40 ms, on machines that have nothing else to do
		t.Errorf("%v after %v", err, took)
	}
}

func TestWrongConfigurationIsReportedOnce(t *testing.T) {
	h := startPlugin(t, "cloudtrail-relay")
	for range 4 {
		i := instance(t, h, map[string]any{"relay_url": "relay:8080", "secret": "hidden", "queue_size": -1})
		for range 5 {
			logEvent(t, h, i, answered("a"))
		}
	}
	lines := h.Lines()
	if len(lines) != 1 || lines[0].Level != "err" {
		t.Fatalf("Kong's log: %q", lines)
	}
	for _, want := range []string{"wrong configuration of cloudtrail-relay", "queue_size must be between 1 and 100000", "not http://host:port"} {
		if !strings.Contains(lines[0].Text, want) {
			t.Errorf("%q does not say %q", lines[0].Text, want)
		}
	}
	if strings.Contains(lines[0].Text+h.Stderr(), "hidden") {
		t.Error("the secret is in the log")
	}
	// Types that the schema would have refused do not break the connection either.
	i := instance(t, h, map[string]any{"relay_url": []int{1}, "timeout_ms": "soon"})
	logEvent(t, h, i, answered("a"))
	if n := len(h.Lines()); n != 2 {
		t.Errorf("%d lines", n)
	}
}

func TestRingsALambdaFunction(t *testing.T) {
	got := make(chan []byte, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("X-Amz-Invocation-Type") != "Event" || !strings.Contains(r.Header.Get("Authorization"), "/eu-central-1/lambda/") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		got <- body
		w.WriteHeader(http.StatusAccepted)
	}))
	defer s.Close()
	t.Setenv("AWS_ENDPOINT_URL_LAMBDA", s.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	h := startPlugin(t, "cloudtrail-relay")
	logEvent(t, h, instance(t, h, map[string]any{"lambda_function": "arn:aws:lambda:eu-central-1:123456789012:function:relay"}), answered("a1"))
	select {
	case body := <-got:
		if b, err := trigger.ParseInvocation(body); err != nil || !slices.Equal(b.RequestIDs, []string{"a1"}) {
			t.Errorf("%s: %v", body, err)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("nothing was invoked; Kong's log: %q", h.Lines())
	}
}

func TestDump(t *testing.T) {
	out, err := exec.Command(built(t, "cloudtrail-relay"), "-dump", "-kong-prefix", "/usr/local/kong").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := json.Indent(&got, out, "", "  "); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/dump.golden.json"
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.TrimSpace(got.Bytes()), bytes.TrimSpace(want)) {
		t.Errorf("the schema that Kong gets has changed; %s should be:\n%s", golden, got.String())
	}

	// The envelope is go-pdk's: beside one that go-pdk itself prints.
	derived, err := exec.Command(built(t, "empty"), "-dump", "-kong-prefix", "/usr/local/kong").Output()
	if err != nil {
		t.Fatal(err)
	}
	if a, b := shape(t, out), shape(t, derived); a != b {
		t.Errorf("the envelope is\n%s\nand go-pdk's is\n%s", a, b)
	}
}

// shape is a dump without what differs between plugins.
func shape(t *testing.T, dump []byte) string {
	t.Helper()
	var d struct {
		Protocol, SocketPath string
		Plugins              []map[string]any
	}
	decoder := json.NewDecoder(bytes.NewReader(dump))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	name, _ := d.Plugins[0]["Name"].(string)
	schema, _ := d.Plugins[0]["Schema"].(map[string]any)
	if schema["name"] != name {
		t.Errorf("%v is called %v in its schema", name, schema["name"])
	}
	d.Plugins[0]["Schema"], d.Plugins[0]["Name"] = "…", "…"
	d.SocketPath = strings.ReplaceAll(d.SocketPath, name, "…")
	data, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The plugin's name does not depend on the executable's.
func TestNameOfTheExecutable(t *testing.T) {
	other := filepath.Join(t.TempDir(), "plugin")
	if err := os.Link(built(t, "cloudtrail-relay"), other); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(other, "-dump", "-kong-prefix", "/x").Output()
	if err != nil || !bytes.HasPrefix(out, []byte(`{"Protocol":"ProtoBuf:1","SocketPath":"/x/cloudtrail-relay.socket","Plugins":[{"Name":"cloudtrail-relay"`)) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"-no-such-flag"}, {"-kong-prefix", "/no/such/directory"}} {
		out, err := exec.Command(built(t, "cloudtrail-relay"), args...).CombinedOutput()
		if err == nil || len(out) == 0 {
			t.Errorf("%v: %v, %q", args, err, out)
		}
	}
}

// What an event costs beside one that a handler without a line in it gets.
func BenchmarkEvent(b *testing.B) {
	for _, name := range []string{"empty", "cloudtrail-relay"} {
		for _, parallel := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/connections=%d", name, parallel), func(b *testing.B) {
				r, h := newRelay(b), startPlugin(b, name)
				i := instance(b, h, r.config(nil))
				var next, workers = make(chan struct{}), sync.WaitGroup{}
				for range parallel {
					workers.Go(func() {
						for range next {
							logEvent(b, h, i, answered("8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK"))
						}
					})
				}
				before := cpu(b, h.PID())
				b.ResetTimer()
				for range b.N {
					next <- struct{}{}
				}
				close(next)
				workers.Wait()
				// Time on the clock depends on what else runs; this does not.
				b.ReportMetric(float64((cpu(b, h.PID())-before).Nanoseconds())/float64(b.N), "plugin-cpu-ns/op")
			})
		}
	}
}

// cpu is the processor time that a process has used, from /proc: in ticks of 10 ms.
func cpu(t testing.TB, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	ticks := 0
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks*10) * time.Millisecond
}
