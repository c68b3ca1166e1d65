package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/lambdahost"
)

const testFunction = "kong-audit-relay"

// fakeLambda is what the relay sees of Lambda: the runtime API, which hands it
// events and takes its answers, the extensions API, and the Invoke call, whose
// asynchronous invocations become further events.
type fakeLambda struct {
	tb      testing.TB
	w       *world
	server  *httptest.Server
	process *relayRun
	limit   time.Duration // that an invocation may take
	arn     string
	refuse  int // status that Invoke answers, if not 0

	events chan *invocation // handed to the process
	gone   chan struct{}    // closed at the end of the test

	mu         sync.Mutex
	running    map[string]*invocation
	queue      [][]byte // payloads of asynchronous invocations
	qualifiers []string
	count      int
	registered bool

	again int // invocations that were tried again
}

// invocation is an event on its way, and what became of it.
type invocation struct {
	id      string
	payload string
	answer  []byte
	failed  bool
	took    time.Duration
	done    chan struct{}
	begin   time.Time
}

// newFakeLambda starts the built relay as a function.
func newFakeLambda(w *world, limit time.Duration, env ...string) *fakeLambda {
	w.tb.Helper()
	l := &fakeLambda{tb: w.tb, w: w, limit: limit, events: make(chan *invocation), gone: make(chan struct{}), running: map[string]*invocation{},
		arn: "arn:aws:lambda:eu-central-1:123456789012:function:" + testFunction}
	w.tb.Cleanup(func() {
		close(l.gone)
		l.ended()
	})
	l.start(env...)
	return l
}

// start starts a process: a new execution environment, with a runtime API of its
// own, so that no request of the one before takes its events.
func (l *fakeLambda) start(env ...string) {
	l.tb.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", l.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/{outcome}", l.answered)
	mux.HandleFunc("POST /2020-01-01/extension/register", func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		l.registered = true
		l.mu.Unlock()
		w.Header().Set("Lambda-Extension-Identifier", "extension-1")
	})
	mux.HandleFunc("GET /2020-01-01/extension/event/next", func(_ http.ResponseWriter, r *http.Request) { l.block(r.Context()) })
	mux.HandleFunc("POST /2015-03-31/functions/{name}/invocations", l.invoked)
	l.server = httptest.NewServer(mux)
	l.process = l.w.start(append([]string{
		lambdahost.RuntimeAPI + "=" + strings.TrimPrefix(l.server.URL, "http://"), "AWS_LAMBDA_FUNCTION_NAME=" + testFunction,
		"AWS_REGION=eu-central-1", "AWS_ENDPOINT_URL_LAMBDA=" + l.server.URL,
	}, env...))
}

func (l *fakeLambda) block(ctx context.Context) {
	select {
	case <-l.gone:
	case <-ctx.Done():
	}
}

func (l *fakeLambda) next(w http.ResponseWriter, r *http.Request) {
	select {
	case e := <-l.events:
		e.begin = time.Now()
		w.Header().Set("Lambda-Runtime-Aws-Request-Id", e.id)
		w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(e.begin.Add(l.limit).UnixMilli(), 10))
		w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", l.arn)
		w.Header().Set("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700")
		_, _ = io.WriteString(w, e.payload)
	case <-l.gone:
	case <-r.Context().Done():
	}
}

// ended closes the runtime API of a process that is gone.
func (l *fakeLambda) ended() {
	l.server.CloseClientConnections()
	l.server.Close()
}

func (l *fakeLambda) answered(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	l.mu.Lock()
	e := l.running[r.PathValue("id")]
	delete(l.running, r.PathValue("id"))
	l.mu.Unlock()
	if e == nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	e.answer, e.failed, e.took = body, r.PathValue("outcome") == "error", time.Since(e.begin)
	close(e.done)
	w.WriteHeader(http.StatusAccepted)
}

func (l *fakeLambda) invoked(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.refuse != 0:
		w.WriteHeader(l.refuse)
		return
	case r.PathValue("name") != testFunction, r.Header.Get("X-Amz-Invocation-Type") != "Event",
		!strings.Contains(r.Header.Get("Authorization"), "/eu-central-1/lambda/aws4_request"):
		l.tb.Errorf("invoked %s with type %q and %q", r.URL, r.Header.Get("X-Amz-Invocation-Type"), r.Header.Get("Authorization"))
	}
	l.queue = append(l.queue, body)
	l.qualifiers = append(l.qualifiers, r.URL.Query().Get("Qualifier"))
	w.WriteHeader(http.StatusAccepted)
}

// send hands an event to the process.
func (l *fakeLambda) send(payload string) *invocation {
	l.tb.Helper()
	l.mu.Lock()
	l.count++
	e := &invocation{id: fmt.Sprintf("invocation-%d", l.count), payload: payload, done: make(chan struct{})}
	l.running[e.id] = e
	l.mu.Unlock()
	select {
	case l.events <- e:
	case <-time.After(patient):
		l.tb.Fatalf("the relay asks for no event:\n%s", l.stop())
	}
	return e
}

// invoke hands over an event and waits for its answer. Lambda would wait for no longer than
// the limit, but a machine can be slow: how much of its time an invocation keeps for the end
// is said by TestTimes (lambdahost).
func (l *fakeLambda) invoke(payload string) *invocation {
	l.tb.Helper()
	e := l.send(payload)
	select {
	case <-e.done:
	case <-time.After(l.limit + patient):
		l.tb.Fatalf("no answer to %s within %s:\n%s", payload, l.limit+patient, l.stop())
	}
	return e
}

// result is invoke for an event that must not fail. One whose time ran out on a machine that
// stood still is tried again, as Lambda tries asynchronous invocations: twice.
func (l *fakeLambda) result(payload string) (r lambdahost.Result) {
	l.tb.Helper()
	e := l.invoke(payload)
	for try := 0; try < 2 && e.failed && ranOut(e.answer); try++ {
		l.tb.Logf("%s is tried again after %s", payload, e.answer)
		l.again++
		e = l.invoke(payload)
	}
	if err := decode(e.answer, &r); err != nil || e.failed {
		l.tb.Fatalf("%s failed: %s\n%s", payload, e.answer, l.stop())
	}
	return r
}

// ranOut reports whether an answer is that of an invocation that had no time left for the end,
// or got nothing done.
func ranOut(answer []byte) bool {
	return bytes.Contains(answer, []byte("context deadline exceeded")) || bytes.Contains(answer, []byte("nothing came of the time"))
}

// fault is invoke for an event that must fail.
func (l *fakeLambda) fault(payload string) (kind, message string) {
	l.tb.Helper()
	e := l.invoke(payload)
	var fault struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}
	if err := json.Unmarshal(e.answer, &fault); err != nil || !e.failed {
		l.tb.Fatalf("%s did not fail: %s", payload, e.answer)
	}
	return fault.Type, fault.Message
}

// queued takes the asynchronous invocations that are waiting.
func (l *fakeLambda) queued() (payloads []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.queue {
		payloads = append(payloads, string(p))
	}
	l.queue = nil
	return payloads
}

// drain hands over asynchronous invocations until there are none left.
func (l *fakeLambda) drain() (results []lambdahost.Result) {
	l.tb.Helper()
	for {
		payloads := l.queued()
		if len(payloads) == 0 {
			return results
		}
		for _, p := range payloads {
			results = append(results, l.result(p))
		}
	}
}

// stop tells the process to stop, and returns what it has logged.
func (l *fakeLambda) stop() string {
	l.tb.Helper()
	if err := l.process.cmd.Process.Signal(syscall.SIGTERM); err == nil {
		if code := l.process.wait(l.tb); code != exitOK {
			l.tb.Errorf("told to stop, the relay ended with %d", code)
		}
		l.ended()
	}
	log := l.process.stderr.String()
	for line := range strings.Lines(log) {
		if !jsontext.Value(line).IsValid() {
			l.tb.Errorf("a line of the log is not JSON: %s", line)
		}
	}
	if strings.Contains(log, testToken) {
		l.tb.Error("the token is in the log")
	}
	return tail(log, 4000)
}

// emf reads the metrics from a stopped process's output, one map for each line.
func (l *fakeLambda) emf() (lines []map[string]float64) {
	l.tb.Helper()
	for line := range bytes.Lines(l.process.stdout.Bytes()) {
		var in struct {
			AWS struct {
				Timestamp         int64
				CloudWatchMetrics []struct {
					Namespace  string
					Dimensions [][]string
					Metrics    []struct{ Name, Unit string }
				}
			} `json:"_aws"`
			Source string
		}
		var values map[string]jsontext.Value
		if err := decode(line, &in); err != nil || json.Unmarshal(line, &values) != nil {
			l.tb.Fatalf("metrics are not JSON: %s", line)
		}
		if d := time.Since(time.UnixMilli(in.AWS.Timestamp)); d < 0 || d > 5*time.Minute || len(in.AWS.CloudWatchMetrics) != 1 || in.Source != "kong" {
			l.tb.Fatalf("metrics are not as they should be: %s", line)
		}
		d := in.AWS.CloudWatchMetrics[0]
		if d.Namespace != "KongCloudTrailRelay" || fmt.Sprint(d.Dimensions) != "[[Source]]" {
			l.tb.Errorf("namespace and dimensions are %s and %v", d.Namespace, d.Dimensions)
		}
		m := map[string]float64{}
		for _, metric := range d.Metrics {
			var v float64
			if err := json.Unmarshal(values[metric.Name], &v); err != nil || (metric.Unit != "Seconds" && metric.Unit != "Count") {
				l.tb.Errorf("metric %s: %v, unit %s", metric.Name, err, metric.Unit)
			}
			m[metric.Name] = v
		}
		lines = append(lines, m)
	}
	return lines
}

// secretStore is a Secrets Manager with one secret, and its settings.
type secretStore struct {
	mu   sync.Mutex
	text string
}

func (s *secretStore) set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = text
}

func (s *secretStore) start(tb testing.TB) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_ = json.MarshalWrite(w, map[string]string{"SecretString": s.text})
	}))
	tb.Cleanup(server.Close)
	return "AWS_ENDPOINT_URL_SECRETS_MANAGER=" + server.URL
}

// kill ends a process as Lambda ends one that took too long.
func (l *fakeLambda) kill() {
	_ = l.process.cmd.Process.Kill()
	l.process.wait(l.tb)
	l.ended()
}
