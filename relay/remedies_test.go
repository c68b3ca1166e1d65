package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/redistest"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// namedFault is a fault, and what is said while it lasts.
type namedFault struct {
	name, dependency string
	cause, hint      string   // parts of what is said
	env              []string // variables of the relay
	atStart          bool     // the relay starts with it, and it does not end
	begin, over      func(w *namedWorld)
	quiet            bool     // nothing is recorded while it lasts
	alerts           []string // that fire; AuditDependencyFailing if empty
}

// namedWorld is a relay that reaches Kong, ledger and destination through fronts.
type namedWorld struct {
	*world
	relay                           *relayRun
	url, ops                        string
	issuer                          *issuer
	good                            frontMode
	wrong                           map[string]frontMode
	kongFront, redisFront, awsFront *front
	added                           atomic.Int64
	secret                          string // signs the triggers of work
}

func newNamedWorld(t *testing.T, env []string) *namedWorld {
	w := &namedWorld{world: newWorldOn(t, redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always"), kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})}
	w.issuer = newIssuer(t)
	w.good, w.wrong = frontMode{cert: w.issuer.server(nil)}, w.issuer.wrongTLS()
	w.kongFront = newFront(t, strings.TrimPrefix(w.kongURL, "http://"), w.good)
	w.redisFront = newFront(t, w.redis.Addr, w.good)
	w.awsFront = newFront(t, strings.TrimPrefix(w.trailURL, "http://"), w.good)
	w.env = append(w.env, "KONG_ADMIN_API=https://"+w.kongFront.addr, "KONG_ROOT_CA="+w.issuer.path,
		"REDIS_HOST="+w.redisFront.addr, "RELAY_REDIS_CA="+w.issuer.path,
		"AWS_ENDPOINT_URL_CLOUDTRAIL_DATA=https://"+w.awsFront.addr, "AWS_CA_BUNDLE="+w.issuer.path)
	w.env = append(w.env, env...)
	w.secret = w.get("RELAY_TRIGGER_SECRET")
	return w
}

// up starts the relay.
func (w *namedWorld) up() {
	w.relay, w.url, w.ops = w.serve()
	w.env = append(w.env, "RELAY_OPS_LISTEN="+strings.TrimPrefix(w.ops, "http://"))
}

// work adds an entry and triggers a poll, which may fail.
func (w *namedWorld) work() {
	w.kong.Add(rows(fmt.Sprintf("w%dx", w.added.Add(1)), 1, func(int) time.Time { return time.Now() })...)
	_ = w.notify(w.secret)
}

func (w *namedWorld) notify(secret string, ids ...string) error {
	c, err := trigger.NewClient(trigger.ClientOptions{URL: w.url, Secret: secret, Delivery: trigger.Delivery{Timeout: 10 * time.Second}})
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Notify(w.tb.Context(), ids)
}

// named is what a log line or a state says of a fault.
type named struct {
	Level, Msg, Err, Hint, Dependency string // of a line
	Status, Cause                     string // of a state
}

// lines returns the log's lines of a message about a dependency.
func (w *namedWorld) lines(message, dependency string) (found []named) {
	for line := range strings.Lines(w.relay.stderr.String()) {
		var n named
		if decode([]byte(line), &n) == nil && n.Msg == message && (dependency == "" || n.Dependency == dependency) {
			found = append(found, n)
		}
	}
	return found
}

// status returns what /status says.
func (w *namedWorld) status() (s struct {
	Verdict, Hint string
	Failing       bool
	Dependencies  []named
}) {
	w.tb.Helper()
	_, text := fetchOps(w.tb, w.ops+"/status")
	if err := decode([]byte(text), &s); err != nil {
		w.tb.Fatalf("%v: %s", err, text)
	}
	return s
}

func (w *namedWorld) state(dependency string) named {
	list := w.status().Dependencies
	if i := slices.IndexFunc(list, func(n named) bool { return n.Dependency == dependency }); i >= 0 {
		return list[i]
	}
	return named{}
}

// Every fault is named by log, /status, page, metric and relay status, with what to
// do about it, and its end is said.
func TestEveryFaultIsNamed(t *testing.T) {
	t.Parallel()
	if !redistest.Real() {
		t.Log("needs a redis-server")
		return
	}
	for _, c := range slices.Concat(namedKongFaults(), namedLedgerFaults(), namedDestinationFaults(), namedOtherFaults()) {
		t.Run(c.dependency+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			w := newNamedWorld(t, c.env)
			w.up()
			defer func() {
				if t.Failed() {
					_ = w.relay.cmd.Process.Kill()
					<-w.relay.waited
					t.Logf("relay:\n%s", tail(w.relay.stderr.String(), 6000))
				}
			}()
			if !c.atStart {
				w.healthy(c.dependency)
			}
			w.certificates(t)
			w.named(t, c)
			if !c.atStart {
				w.ended(t, c)
			}
		})
	}
}

// certificates expects that those of Kong and of the ledger are shown.
func (w *namedWorld) certificates(t *testing.T) {
	t.Helper()
	eventually(t, patient, "certificates", func() bool {
		return metric(t, w.ops, `certificate_expiry_timestamp_seconds{certificate="kong"}`) != "" &&
			metric(t, w.ops, `certificate_expiry_timestamp_seconds{certificate="ledger"}`) != ""
	})
}

// healthy waits until everything works and something has been delivered.
func (w *namedWorld) healthy(dependency string) {
	w.tb.Helper()
	w.work()
	eventually(w.tb, patient, "health", func() bool {
		ok := 0
		for _, d := range w.status().Dependencies {
			if d.Status == "ok" {
				ok++
			}
		}
		return ok >= 3 && w.trail.Counts().Events > 0 && w.kong.LateRows() == 0
	})
}

// says reports whether a line or a state has the remedy of a fault and its cause, or one of
// several between bars.
func (c *namedFault) says(n named) bool {
	return strings.Contains(n.Hint, c.hint) && slices.ContainsFunc(strings.Split(c.cause, "|"), func(cause string) bool { return strings.Contains(n.Err+n.Cause, cause) })
}

// failures returns the log's lines that say that a dependency fails, or still does.
func (w *namedWorld) failures(dependency string) []named {
	return append(w.lines("dependency is failing", dependency), w.lines("dependency is still failing", dependency)...)
}

// named begins a fault, and expects that everything names it.
func (w *namedWorld) named(t *testing.T, c namedFault) {
	begin, before := time.Now(), len(w.failures(c.dependency)) // a busy machine may have had calls that took too long
	if c.atStart {
		before = 0
	}
	if c.begin != nil {
		c.begin(w)
	}
	var line, state named
	defer func() {
		if t.Failed() {
			t.Logf("the log says %+v, /status %+v, want %q and %q", line, state, c.cause, c.hint)
		}
	}()
	again := time.Time{}
	work := func() {
		if time.Since(again) > time.Second && !c.quiet {
			again = time.Now()
			w.work()
		}
	}
	eventually(t, patient, "a warning that names cause and remedy", func() bool {
		work()
		if lines := w.failures(c.dependency); len(lines) > before {
			line = lines[len(lines)-1]
		}
		return line.Level == "WARN" && c.says(line)
	})
	t.Logf("named after %.1f s: %s\n\twhat to do: %s", time.Since(begin).Seconds(), line.Err, line.Hint)
	eventually(t, patient, "a state that names cause and remedy", func() bool {
		work()
		state = w.state(c.dependency)
		return state.Status == "failing" && c.says(state)
	})
	if n := metric(t, w.ops, `dependency_up{dependency="`+c.dependency+`"}`); n != "0" {
		t.Errorf("dependency_up is %q", n)
	}
	// The latest failure may be that of a call that was under way when the fault began: it broke off.
	eventually(t, patient, "a page that names the remedy", func() bool {
		work()
		_, page := fetchOps(t, w.ops+"/")
		return strings.Contains(html.UnescapeString(page), c.hint)
	})
	eventually(t, patient, "a status that names the remedy", func() bool {
		work()
		out, _ := w.says(exitFailed, "status")
		contains(t, out, "has been failing since", "What to do: ")
		return strings.Contains(out, c.hint)
	})
	if alerts := c.alerts; promtool() != "" {
		if alerts == nil {
			alerts = []string{"AuditDependencyFailing"}
		}
		_, scraped := fetchOps(t, w.ops+"/metrics")
		fires(t, scraped, alerts...)
	}
}

// ended ends a fault, and expects that its end is said and nothing was lost.
func (w *namedWorld) ended(t *testing.T, c namedFault) {
	if *faultsLong { // said again after 30 s, and not before
		eventually(t, patient, "a reminder", func() bool { return len(w.lines("dependency is still failing", c.dependency)) > 0 })
	}
	c.over(w)
	again := time.Time{}
	eventually(t, patient, "the end", func() bool {
		if time.Since(again) > 2*time.Second {
			again = time.Now()
			w.work()
		}
		return w.state(c.dependency).Status == "ok" && !w.status().Failing && len(w.lines("dependency works again", c.dependency)) > 0
	})
	if n := metric(t, w.ops, `dependency_up{dependency="`+c.dependency+`"}`); n != "1" {
		t.Errorf("dependency_up is %q", n)
	}
	eventually(t, patient, "everything delivered", func() bool { return len(w.lost()) == 0 })
	eventually(t, patient, "the verdict", func() bool { return strings.HasPrefix(w.status().Verdict, "all that Kong recorded") })
	w.says(exitOK, "status")
	// A busy machine may have been said to be slow besides.
	if lines := slices.DeleteFunc(w.lines("dependency is failing", c.dependency), func(n named) bool { return !c.says(n) }); len(lines) > 1 {
		t.Errorf("named %d times", len(lines))
	}
}

// A ledger that was emptied is a warning although nothing triggers a pass, and what is
// repeated is counted.
func TestEmptiedLedgerIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.Add(rows("a", 50, func(int) time.Time { return time.Now() })...)
	r, _, ops := w.serve()
	eventually(t, patient, "the first pass", func() bool { return w.trail.Counts().Events == 50 })
	eventually(t, patient, "the end of the pass", func() bool { return metric(t, ops, "passes_running") == "0" })
	// What it had recorded is known to the second.
	last := time.Now().Unix()
	eventually(t, patient, "the next second", func() bool { return time.Now().Unix() > last })
	redisDo(t, w.redis.Addr, "FLUSHALL")
	w.kong.Add(rows("b", 1, func(int) time.Time { return time.Now() })...)
	defer func() {
		if t.Failed() {
			_ = r.cmd.Process.Kill()
			<-r.waited
			t.Logf("%+v\n%s", w.trail.Counts(), tail(r.stderr.String(), 4000))
		}
	}()
	eventually(t, patient, "everything again", func() bool { return metric(t, ops, "entries_repeated_total") == "50" })
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait(t)
	if n := strings.Count(r.stderr.String(), "the ledger forgot what it knew"); n != 1 || !strings.Contains(r.stderr.String(), `"level":"WARN","msg":"the ledger forgot`) {
		t.Errorf("said %d times:\n%s", n, r.stderr.String())
	}
}

// A fatal error of serve is a line of the log.
func TestFatalErrorIsALogLine(t *testing.T) {
	t.Parallel()
	if !redistest.Real() {
		t.Log("needs a redis-server")
		return
	}
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	redisDo(t, w.redis.Addr, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	r := w.start([]string{"RELAY_LISTEN=off", "RELAY_OPS_LISTEN=off"}, "serve")
	if code := r.wait(t); code != exitFailed {
		t.Errorf("ended with %d", code)
	}
	found := 0
	for line := range strings.Lines(r.stderr.String()) {
		var n named
		if err := decode([]byte(line), &n); err != nil {
			t.Errorf("not a line of the log: %q", line)
		}
		if n.Level == "ERROR" && strings.Contains(n.Err, "allkeys-lru") && strings.Contains(n.Hint, "noeviction") {
			found++
		}
	}
	if found != 1 {
		t.Errorf("said %d times:\n%s", found, r.stderr.String())
	}
}

// An address that was mistyped is no reason to adopt the ledger of another Kong.
func TestMistypedAddressIsNotAdopted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.Add(rows("a", 5, func(int) time.Time { return time.Now() })...)
	w.once()
	right := w.env
	w.env = append(slices.Clone(right), "KONG_ADMIN_API=http://127.0.0.1:1")
	for _, args := range [][]string{{"once"}, {"--adopt", "once"}, {"check"}, {"--adopt", "check"}} {
		out, stderr := w.says(exitFailed, args...)
		if out += stderr; strings.Contains(out, "RELAY_ADOPT") || !strings.Contains(out, "connection refused") {
			t.Errorf("%q says\n%s", args, out)
		}
	}
	w.env = right
	w.once() // it was not adopted
}

// A check waits for Kong as long as the relay would.
func TestCheckWaitsForASlowKong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true, Latency: 22 * time.Second}, cloudtrailtest.Options{})
	out, _ := w.says(exitOK, "check")
	contains(t, out, "ok      kong")
}

// Without Kong there are no triggers, and the schedule is far: the relay notices by itself,
// and asks for nothing that Kong would record.
func TestKongIsGoneWhileNothingAsks(t *testing.T) {
	t.Parallel()
	w := newNamedWorld(t, []string{"RELAY_CANARY=off"})
	w.up()
	w.work()
	eventually(t, patient, "Kong works", func() bool { return w.state("kong").Status == "ok" })
	// The relay looks whether Kong is there by a connection, every few seconds. One that
	// carried a request would begin the count again.
	requests, connections := -1, int64(0)
	eventually(t, patient, "three connections after each other without a request", func() bool {
		if n := len(w.kong.Requests()); n != requests {
			requests, connections = n, w.kongFront.accepted.Load()
		}
		return w.kongFront.accepted.Load() >= connections+3
	})
	w.kongFront.set(frontMode{refused: true})
	eventually(t, patient, "it is named", func() bool {
		// The line may be of a request that was under way.
		state := w.state("kong")
		return len(w.lines("dependency is failing", "kong")) == 1 && strings.Contains(state.Cause, "connection refused") && strings.Contains(state.Hint, "firewall")
	})
	w.kongFront.set(w.wrong["expired"])
	eventually(t, patient, "another cause", func() bool { return strings.Contains(w.state("kong").Cause, "expired") })
	w.kongFront.set(w.good)
	eventually(t, patient, "its end is said", func() bool {
		return w.state("kong").Status == "ok" && len(w.lines("dependency works again", "kong")) == 1
	})
	eventually(t, patient, "a pass shows that nothing is missing", func() bool { return len(w.lines("everything from an outage is delivered", "")) == 1 })
}
