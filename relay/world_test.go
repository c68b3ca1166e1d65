package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisledger"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

func TestMain(m *testing.M) {
	if err := redistest.Announce("relay"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if signal.Ignored(os.Interrupt) { // as in a job that a script starts with &; the relays must not inherit it
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	}
	// Most of these tests wait for something. A -parallel on the command line takes precedence.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// relayBinary builds the program, once.
var relayBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "relay-test-")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "relay")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the relay: %w\n%s", err, out)
	}
	return binary, nil
})

// world is a Kong, a CloudTrail Lake and a Redis, and the settings that name them.
type world struct {
	tb    testing.TB
	kong  *kongtest.Server
	trail *cloudtrailtest.Server
	redis *redistest.Server
	env   []string

	kongURL, trailURL string
}

const testToken = "token-of-the-audit-relay"

func newWorld(tb testing.TB, kong kongtest.Options, trail cloudtrailtest.Options) *world {
	tb.Helper()
	return newWorldOn(tb, redistest.Start(tb), kong, trail)
}

// newWorldOn is newWorld with a Redis of the caller's.
func newWorldOn(tb testing.TB, redis *redistest.Server, kong kongtest.Options, trail cloudtrailtest.Options) *world {
	tb.Helper()
	kong.Token = testToken
	w := &world{tb: tb, kong: kongtest.New(kong), trail: cloudtrailtest.New(trail), redis: redis}
	kongURL, err := w.kong.Start()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { w.kong.Close() })
	serving := httptest.NewServer(w.trail)
	tb.Cleanup(serving.Close)
	w.kongURL, w.trailURL = kongURL, serving.URL
	w.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + tb.TempDir(),
		"KONG_ADMIN_API=" + kongURL, "KONG_SUPERADMIN=true", "KONG_ADMIN_TOKEN=" + testToken,
		"REDIS_HOST=" + w.redis.Addr, "CHANNEL_ARN=" + cloudtrailtest.ChannelARN, "REGION=eu-central-1",
		"AWS_ACCESS_KEY_ID=" + cloudtrailtest.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + cloudtrailtest.SecretAccessKey,
		"AWS_ENDPOINT_URL_CLOUDTRAIL_DATA=" + serving.URL, "AWS_EC2_METADATA_DISABLED=true",
	}
	return w
}

// destination returns the name of the world's channel in the ledger's keys.
func (w *world) destination() string {
	if url := w.get("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS"); url != "" {
		return "logs::" + w.get("REGION") + ":" + w.get("RELAY_LOG_GROUP") + ":kong@" + url
	}
	return cloudtrailtest.ChannelARN + "@" + w.get("AWS_ENDPOINT_URL_CLOUDTRAIL_DATA")
}

// ledger opens the ledger of the world's relays.
func (w *world) ledger() *redisledger.Ledger {
	w.tb.Helper()
	l := redisledger.Open(redisconn.Options{Addrs: []string{w.redis.Addr}}, redisledger.Options{Source: "kong", Destination: w.destination(), LeaseTTL: time.Hour})
	w.tb.Cleanup(func() { l.Close() })
	if err := l.Begin(w.tb.Context()); err != nil {
		w.tb.Fatal(err)
	}
	return l
}

// run is a relay process.
type relayRun struct {
	cmd            *exec.Cmd
	stdout, stderr output
	waited         chan struct{} // closed once it has ended
	peak           atomic.Int64  // bytes, if watchMemory was called
}

// output is what a process writes, which can be read while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// Bytes returns a copy of what has been written so far.
func (o *output) Bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.text.Bytes())
}

func (o *output) String() string { return string(o.Bytes()) }

// watchMemory notes the process's peak of resident memory until it ends. What
// wait4 says of it is of no use: it includes the peak of the process that started it.
func (r *relayRun) watchMemory() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
		if err != nil {
			return
		}
		_, after, found := strings.Cut(string(status), "VmHWM:")
		if !found {
			return // a zombie has none
		}
		var kib int64
		if _, err := fmt.Sscan(after, &kib); err != nil {
			return
		}
		r.peak.Store(kib << 10)
	}
}

// start starts the built relay with further variables.
func (w *world) start(env []string, args ...string) *relayRun {
	w.tb.Helper()
	binary, err := relayBinary()
	if err != nil {
		w.tb.Fatal(err)
	}
	r := &relayRun{cmd: exec.Command(binary, args...), waited: make(chan struct{})}
	r.cmd.Env = append(append([]string{}, w.env...), env...)
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	r.cmd.WaitDelay = patient // what it wrote last is read first
	if err := r.cmd.Start(); err != nil {
		w.tb.Fatal(err)
	}
	go func() {
		defer close(r.waited)
		_ = r.cmd.Wait() // the state tells
	}()
	w.tb.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.waited // it writes into folders that are removed
	})
	return r
}

// ended reports whether the process has ended.
func (r *relayRun) ended() bool {
	select {
	case <-r.waited:
		return true
	default:
		return false
	}
}

// wait returns the exit code.
func (r *relayRun) wait(tb testing.TB) int {
	tb.Helper()
	select {
	case <-r.waited:
		return r.cmd.ProcessState.ExitCode()
	case <-time.After(2 * time.Minute):
		_ = r.cmd.Process.Signal(syscall.SIGQUIT)
		<-r.waited
		tb.Fatalf("relay did not end:\n%s", tail(r.stderr.String(), 8000))
	}
	return -1
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// once runs relay once --json with more arguments and returns its summary.
func (w *world) once(args ...string) pipeline.Summary {
	w.tb.Helper()
	r := w.start(nil, append([]string{"once", "--json"}, args...)...)
	code := r.wait(w.tb)
	s := r.summary(w.tb)
	// A pass that leaves entries to the next one has failed; of dead letters it warns.
	want := exitOK
	if s.Deferred+s.StillDeferred > 0 {
		want = exitFailed
	}
	if s.Dead > 0 && !strings.Contains(r.stderr.String(), "rejected permanently: relay dead list") {
		w.tb.Errorf("no warning of dead letters:\n%s", tail(r.stderr.String(), 4000))
	}
	if code != want || !s.Complete {
		w.tb.Fatalf("relay once ended with %d, want %d:\n%s%s", code, want, r.stdout.String(), tail(r.stderr.String(), 4000))
	}
	return s
}

func (r *relayRun) summary(tb testing.TB) pipeline.Summary {
	tb.Helper()
	var s shownSummary
	if err := decode(r.stdout.Bytes(), &s); err != nil {
		tb.Fatalf("summary is not JSON: %v\n%s\n%s", err, r.stdout.String(), tail(r.stderr.String(), 4000))
	}
	s.Summary.Through = s.Through.Unix()
	return s.Summary
}

// decode decodes JSON into a value whose fields are named without regard to case.
func decode(text []byte, into any) error {
	return json.Unmarshal(text, into, json.MatchCaseInsensitiveNames(true))
}

// lost returns the ids that Kong holds and that did not arrive.
func (w *world) lost() (ids []string) {
	for id := range w.kong.IDs() {
		if w.trail.Times(id) == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// expectAll fails unless everything that Kong holds has arrived, and no more
// repeats than allowed.
func (w *world) expectAll(repeats int) {
	w.tb.Helper()
	c := w.trail.Counts()
	if lost := w.lost(); len(lost) > 0 {
		w.tb.Errorf("%d of %d entries lost, such as %q", len(lost), w.kong.Len(), lost[0])
	}
	if c.Repeats > repeats {
		w.tb.Errorf("%d events repeated, want at most %d", c.Repeats, repeats)
	}
}

// serve starts relay serve and returns it with the address of its operations listener.
func (w *world) serve(env ...string) (r *relayRun, trigger, ops string) {
	w.tb.Helper()
	trigger, ops = "127.0.0.1:"+redistest.FreePort(w.tb), "127.0.0.1:"+redistest.FreePort(w.tb)
	r = w.start(append([]string{"RELAY_LISTEN=" + trigger, "RELAY_OPS_LISTEN=" + ops}, env...), "serve")
	eventually(w.tb, patient, "relay serve listens", func() bool {
		if r.ended() {
			w.tb.Fatalf("relay serve ended by itself: %v\n%s", r.cmd.ProcessState, tail(r.stderr.String(), 4000))
		}
		c, err := net.Dial("tcp", trigger)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return r, "http://" + trigger, "http://" + ops
}

// says runs relay, which has to end with a code, and returns what it prints.
func (w *world) says(want int, args ...string) (stdout, stderr string) {
	w.tb.Helper()
	r := w.start(nil, args...)
	if code := r.wait(w.tb); code != want {
		w.tb.Errorf("relay %s ended with %d, want %d:\n%s%s", strings.Join(args, " "), code, want, r.stdout.String(), tail(r.stderr.String(), 2000))
	}
	return r.stdout.String(), r.stderr.String()
}

// instead replaces a variable by others.
func (w *world) instead(prefix string, env ...string) {
	kept := slices.DeleteFunc(slices.Clone(w.env), func(kv string) bool { return strings.HasPrefix(kv, prefix) })
	w.env = append(kept, env...)
}

// get returns a variable: the last one, as a process does.
func (w *world) get(name string) string {
	for _, kv := range slices.Backward(w.env) {
		if key, value, _ := strings.Cut(kv, "="); key == name {
			return value
		}
	}
	return ""
}

// without removes variables.
func (w *world) without(names ...string) {
	for _, name := range names {
		w.instead(name + "=")
	}
}

// answering listens at an address, answers what comes there with a text, and closes the connection.
func answering(tb testing.TB, text string) (address string) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, text)
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}
