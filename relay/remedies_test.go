package main

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
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
	_ = w.notify("")
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
		if json.Unmarshal([]byte(line), &n) == nil && n.Msg == message && (dependency == "" || n.Dependency == dependency) {
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
	if err := json.Unmarshal([]byte(text), &s); err != nil {
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

const patient = 2 * time.Minute // for a busy machine

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
		return ok >= 3 && w.trail.Counts().Events > 0
	})
}

// names reports whether a text has the cause of a fault, or one of several between bars.
func (c *namedFault) names(text string) bool {
	return slices.ContainsFunc(strings.Split(c.cause, "|"), func(cause string) bool { return strings.Contains(text, cause) })
}

// named begins a fault, and expects that everything names it.
func (w *namedWorld) named(t *testing.T, c namedFault) {
	begin := time.Now()
	if c.begin != nil {
		c.begin(w)
	}
	again := time.Time{}
	eventually(t, patient, "a warning", func() bool {
		if time.Since(again) > time.Second {
			again = time.Now()
			if !c.quiet {
				w.work()
			}
		}
		return len(w.lines("dependency is failing", c.dependency)) > 0
	})
	took := time.Since(begin)
	line := w.lines("dependency is failing", c.dependency)[0]
	t.Logf("named after %.1f s: %s\n\twhat to do: %s", took.Seconds(), line.Err, line.Hint)
	if line.Level != "WARN" || !c.names(line.Err) || !strings.Contains(line.Hint, c.hint) {
		t.Errorf("the log says %+v, want %q and %q", line, c.cause, c.hint)
	}
	if s := w.state(c.dependency); s.Status != "failing" || !c.names(s.Cause) || !strings.Contains(s.Hint, c.hint) {
		t.Errorf("/status says %+v, want %q and %q", s, c.cause, c.hint)
	}
	if n := metric(t, w.ops, `dependency_up{dependency="`+c.dependency+`"}`); n != "0" {
		t.Errorf("dependency_up is %q", n)
	}
	if _, page := fetchOps(t, w.ops+"/"); !strings.Contains(html.UnescapeString(page), c.hint) {
		t.Errorf("the page does not say %q:\n%s", c.hint, page)
	}
	out, _ := w.says(exitFailed, "status")
	contains(t, out, "has been failing since", "What to do: ", c.hint)
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
	if n := len(w.lines("dependency is failing", c.dependency)); n != 1 {
		t.Errorf("named %d times", n)
	}
}

// says is what something before a server answers.
func says(status, header, body string) frontMode {
	return frontMode{answer: func() string {
		return fmt.Sprintf("HTTP/1.1 %s\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, header, len(body), body)
	}}
}

// at returns what sets a front, with TLS where the mode answers by itself.
func at(f func(w *namedWorld) *front, mode func(w *namedWorld) frontMode) func(w *namedWorld) {
	return func(w *namedWorld) {
		m := mode(w)
		if m.answer != nil {
			m.cert = w.good.cert
		}
		f(w).set(m)
	}
}

func namedKongFaults() []namedFault {
	kong := func(w *namedWorld) *front { return w.kongFront }
	fixed := func(m frontMode) func(*namedWorld) { return at(kong, func(*namedWorld) frontMode { return m }) }
	wrong := func(kind string) func(*namedWorld) {
		return at(kong, func(w *namedWorld) frontMode { return w.wrong[kind] })
	}
	over := at(kong, func(w *namedWorld) frontMode { return w.good })
	page := func(f kongtest.Fault) func(*namedWorld) {
		return func(w *namedWorld) {
			w.kong.Update(func(o *kongtest.Options) { o.Chances = []kongtest.Chance{{P: 1, Fault: f}} })
		}
	}
	pages := func(w *namedWorld) { w.kong.Update(func(o *kongtest.Options) { o.Chances = nil }) }
	list := []namedFault{
		{name: "refuses connections", cause: "connection refused", hint: "the Admin API listens there", begin: fixed(frontMode{refused: true}), over: over},
		{name: "does not answer", cause: "no answer within|timeout", hint: "Kong or its database is slow or down", begin: fixed(frontMode{silent: true}), over: over},
		{name: "certificate expired", cause: "expired", hint: "renew the certificate of CN=server, which is valid from", begin: wrong("expired"), over: over},
		{name: "certificate of another name", cause: "127.0.0.1", hint: "--kong-tls-server-name", begin: wrong("wrong name"), over: over},
		{name: "certificate of an unknown CA", cause: "unknown authority", hint: "set KONG_ROOT_CA", begin: wrong("unknown CA"), over: over},
		{name: "plain HTTP", cause: "HTTP response to HTTPS client", hint: "give KONG_ADMIN_API with http://", begin: wrong("plain"), over: over},
		{name: "nginx answers 503", cause: "503 Service Unavailable: 503 Service Temporarily Unavailable (said by nginx)", hint: "the answer of nginx, which stands before Kong",
			begin: fixed(says("503 Service Temporarily Unavailable", "Server: nginx\r\nContent-Type: text/html\r\n", "<html><head><title>503 Service Temporarily Unavailable</title></head></html>")), over: over},
		{name: "login page", cause: "HTML, not JSON", hint: "not Kong Manager, a proxy port or a login page", begin: page(kongtest.HTML()), over: pages},
		{name: "token refused", cause: "401 Unauthorized", hint: "check KONG_ADMIN_TOKEN", begin: page(kongtest.Fault{Status: 401}), over: pages},
		{name: "no permission", cause: "403 Forbidden", hint: "read on /audit/requests", begin: page(kongtest.Fault{Status: 403}), over: pages},
		{name: "no audit log", cause: "404 Not Found", hint: "audit_log is off", begin: page(kongtest.Fault{Status: 404}), over: pages},
		{name: "database down", cause: "500 Internal Server Error", hint: "Kong's error log and at its database", begin: page(kongtest.Fault{Status: 500}), over: pages},
		{name: "closes connections", cause: "EOF", hint: "something closes connections without an answer", begin: fixed(frontMode{answer: func() string { return "" }}), over: over},
		{name: "asks for patience", cause: "429 Too Many Requests", hint: "something limits how often the Admin API may be asked",
			begin: fixed(says("429 Too Many Requests", "Retry-After: 5\r\nContent-Type: application/json\r\n", `{"message":"API rate limit exceeded"}`)), over: over},
		{name: "a proxy asks for a password", cause: "407 Proxy Authentication Required", hint: "asks for user and password", begin: fixed(says("407 Proxy Authentication Required", "Server: squid\r\n", "")), over: over},
		{name: "answers break off", cause: "broke off", hint: "something cuts Kong's answers short", begin: page(kongtest.Fault{Truncate: true}), over: pages},
	}
	for i := range list {
		list[i].dependency = "kong"
	}
	return list
}

func namedLedgerFaults() []namedFault {
	redis := func(w *namedWorld) *front { return w.redisFront }
	wrong := func(kind string) func(*namedWorld) {
		return at(redis, func(w *namedWorld) frontMode { return w.wrong[kind] })
	}
	over := at(redis, func(w *namedWorld) frontMode { return w.good })
	do := func(args ...string) func(*namedWorld) {
		return func(w *namedWorld) { redisDo(w.tb, w.redis.Addr, args...) }
	}
	// What a connection may do is decided when it is made.
	reconnect := func(args ...string) func(*namedWorld) {
		return func(w *namedWorld) {
			redisDo(w.tb, w.redis.Addr, args...)
			over(w)
		}
	}
	list := []namedFault{
		{name: "killed", cause: "redis at", hint: "start Redis or Valkey", begin: func(w *namedWorld) { w.redis.Kill() }, over: func(w *namedWorld) { w.redis.Restart() }},
		{name: "refuses connections", cause: "connection refused", hint: "start Redis or Valkey", begin: at(redis, func(*namedWorld) frontMode { return frontMode{refused: true} }), over: over},
		{name: "frozen", cause: "no answer within|deadline exceeded", hint: "the load of the ledger's server", begin: func(w *namedWorld) {
			if err := w.redis.Stop(); err != nil {
				w.tb.Error(err)
			}
		}, over: func(w *namedWorld) {
			if err := w.redis.Continue(); err != nil {
				w.tb.Error(err)
			}
		}},
		{name: "full", cause: "OOM", hint: "Redis is full: raise its maxmemory", begin: do("CONFIG", "SET", "maxmemory", "1"), over: do("CONFIG", "SET", "maxmemory", "0")},
		{name: "read-only", cause: "READONLY", hint: "name the primary", begin: do("REPLICAOF", "127.0.0.1", "1"), over: do("REPLICAOF", "NO", "ONE")},
		{name: "evicting", cause: "allkeys-lru", hint: "set maxmemory-policy to noeviction", begin: do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
			over: do("CONFIG", "SET", "maxmemory-policy", "noeviction"), alerts: []string{"AuditDependencyFailing", "AuditLedgerMayForget"}},
		{name: "password asked for", cause: "uth", hint: "set REDIS_PASSWORD", begin: reconnect("CONFIG", "SET", "requirepass", "sesame"), over: func(w *namedWorld) {
			w.redis.Kill()
			w.redis.Restart()
		}},
		{name: "scripts forbidden", cause: "NOPERM", hint: "let the ACL user do", begin: reconnect("ACL", "SETUSER", "default", "-@scripting"), over: reconnect("ACL", "SETUSER", "default", "+@all")},
		{name: "certificate expired", cause: "expired", hint: "renew the server's certificate", begin: wrong("expired"), over: over},
		{name: "certificate of another name", cause: "certificate", hint: "--redis-tls-server-name to a name that the server's certificate is for: elsewhere.internal", begin: wrong("wrong name"), over: over},
		{name: "certificate of an unknown CA", cause: "unknown authority", hint: "--redis-ca", begin: wrong("unknown CA"), over: over},
		{name: "no TLS", cause: "", hint: "leave out --redis-tls", begin: wrong("plain"), over: over},
	}
	for i := range list {
		list[i].dependency = "ledger"
	}
	return list
}

func namedDestinationFaults() []namedFault {
	aws := func(w *namedWorld) *front { return w.awsFront }
	fixed := func(m frontMode) func(*namedWorld) { return at(aws, func(*namedWorld) frontMode { return m }) }
	wrong := func(kind string) func(*namedWorld) {
		return at(aws, func(w *namedWorld) frontMode { return w.wrong[kind] })
	}
	over := at(aws, func(w *namedWorld) frontMode { return w.good })
	faults := func(f cloudtrailtest.Faults) func(*namedWorld) {
		return func(w *namedWorld) { w.trail.SetFaults(f) }
	}
	call := func(code string) func(*namedWorld) {
		return faults(cloudtrailtest.Faults{Calls: map[string]float64{code: 1}})
	}
	event := func(code string) func(*namedWorld) {
		return faults(cloudtrailtest.Faults{Events: map[string]float64{code: 1}})
	}
	works := faults(cloudtrailtest.Faults{})
	late := frontMode{answer: func() string {
		date := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
		body := `{"message":"Signature expired: 20260101T000000Z is now earlier than 20260101T005500Z"}`
		return fmt.Sprintf("HTTP/1.1 403 Forbidden\r\nDate: %s\r\nX-Amzn-ErrorType: InvalidSignatureException\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", date, len(body), body)
	}}
	list := []namedFault{
		{name: "refuses connections", cause: "no connection to", hint: "check the way to", begin: fixed(frontMode{refused: true}), over: over},
		{name: "cuts connections", cause: "the connection to", hint: "something cuts connections", begin: faults(cloudtrailtest.Faults{Down: true}), over: works},
		{name: "does not answer", cause: "", hint: "look at what is between the relay and", begin: fixed(frontMode{silent: true}), over: over},
		{name: "certificate expired", cause: "has expired", hint: "set this machine's clock, or renew the certificate", begin: wrong("expired"), over: over},
		{name: "certificate of another name", cause: "is not for the name", hint: "look at AWS_ENDPOINT_URL and at this machine's name server", begin: wrong("wrong name"), over: over},
		{name: "certificate of an unknown CA", cause: "was not accepted", hint: "name the CA that signed it in AWS_CA_BUNDLE", begin: wrong("unknown CA"), over: over},
		{name: "plain HTTP", cause: "answers without TLS", hint: "http:// for an emulator without TLS", begin: wrong("plain"), over: over},
		{name: "Region that does not resolve", cause: "does not resolve", hint: "check REGION", atStart: true,
			env: []string{"AWS_ENDPOINT_URL_CLOUDTRAIL_DATA=https://cloudtrail-data.eu-nowhere-1.invalid"}},
		{name: "no permission", cause: "AccessDeniedException", hint: "allow cloudtrail-data:PutAuditEvents", begin: call("AccessDeniedException"), over: works},
		{name: "throttles", cause: "ThrottlingException", hint: "ask AWS for a higher quota", begin: call("ThrottlingException"), over: works},
		{name: "throttles events", cause: "Throttling", hint: "ask AWS for a higher quota", begin: event("Throttling"), over: works},
		{name: "session expired", cause: "ExpiredTokenException", hint: "sign in again", begin: call("ExpiredTokenException"), over: works},
		{name: "clock is behind", cause: "Signature expired", hint: "behind AWS's: set it, by NTP", begin: fixed(late), over: over},
		{name: "time too skewed", cause: "RequestTimeTooSkewed", hint: "set this machine's clock, by NTP", begin: call("RequestTimeTooSkewed"), over: works},
		{name: "wrong key", cause: "UnrecognizedClientException", hint: "AWS_ACCESS_KEY_ID", begin: call("UnrecognizedClientException"), over: works},
		{name: "no channel", cause: "ChannelNotFound", hint: "CHANNEL_ARN must be the ARN of an existing channel", begin: call("ChannelNotFound"), over: works},
		{name: "code that nobody knows", cause: "SomethingNewException", hint: "look up what AWS says of that code", begin: call("SomethingNewException"), over: works},
		{name: "fails", cause: "InternalFailure", hint: "AWS itself fails", begin: call("InternalFailure"), over: works},
		{name: "something between answers 503", cause: "HTTP503", hint: "check HTTPS_PROXY, firewalls", begin: fixed(says("503 Service Unavailable", "Server: envoy\r\n", "upstream connect error")), over: over},
		{name: "login page", cause: "is not one of CloudTrail", hint: "something between the relay and AWS", begin: fixed(says("200 OK", "Content-Type: text/html\r\n", "<html>please log in</html>")), over: over},
		{name: "wrong account", cause: "InvalidRecipient", hint: "not the one that owns the channel", begin: event("InvalidRecipient"), over: works},
		{name: "disk full", cause: "no space left on device", hint: "make room on the destination's file system", atStart: true, env: []string{"RELAY_DESTINATION=jsonl:/dev/full"}},
	}
	for i := range list {
		list[i].dependency = "destination"
	}
	return list
}

func namedOtherFaults() []namedFault {
	secret := "whsec_" + strings.Repeat("QUFB", 10)
	other := "whsec_" + strings.Repeat("QkJC", 10)
	return []namedFault{
		{
			name: "wrong secret", dependency: "triggers", cause: "are refused", hint: "give plugin and relay the same secret",
			env:   []string{"RELAY_TRIGGER_SECRET=" + secret},
			begin: func(w *namedWorld) { _ = w.notify(other) },
			over: func(w *namedWorld) {
				if err := w.notify(secret); err != nil {
					w.tb.Error(err)
				}
			},
		},
		{
			name: "answered and not recorded", dependency: "recording", cause: "has not shown within 30 s", hint: "audit_log_ignore_paths",
			begin: func(w *namedWorld) {
				if err := w.notify("", "neverrecorded"); err != nil {
					w.tb.Error(err)
				}
			},
			over:   func(w *namedWorld) { w.kong.Add(row("neverrecorded", time.Now())) },
			alerts: []string{"AuditDependencyFailing", "AuditNotRecording", "AuditEntriesMissing"},
			quiet:  true,
		},
		{
			name: "canary not recorded", dependency: "recording", cause: "the relay's own request GET /", hint: "turn the canary off with --canary off",
			env:    []string{"RELAY_CANARY=10s"},
			begin:  func(w *namedWorld) { w.kong.Update(func(o *kongtest.Options) { o.LoseRows = 1 }) },
			over:   func(w *namedWorld) { w.kong.Update(func(o *kongtest.Options) { o.LoseRows = 0 }) },
			alerts: []string{"AuditDependencyFailing", "AuditNotRecording"},
			quiet:  true,
		},
		{
			name: "no audit log", dependency: "recording", cause: "kong answers but does not record", hint: "audit_log",
			begin:  func(w *namedWorld) { w.kong.Update(func(o *kongtest.Options) { o.AuditOff = true }) },
			over:   func(w *namedWorld) { w.kong.Update(func(o *kongtest.Options) { o.AuditOff = false }) },
			alerts: []string{"AuditDependencyFailing", "AuditNotRecording"},
		},
	}
}

// A ledger that was emptied is a warning, and what is repeated is counted.
func TestEmptiedLedgerIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.Add(rows("a", 50, func(int) time.Time { return time.Now() })...)
	r, url, ops := w.serve()
	eventually(t, patient, "the first pass", func() bool { return w.trail.Counts().Events == 50 })
	eventually(t, patient, "the end of the pass", func() bool { return metric(t, ops, "passes_running") == "0" })
	// What it had recorded is known to the second.
	last := time.Now().Unix()
	eventually(t, patient, "the next second", func() bool { return time.Now().Unix() > last })
	redisDo(t, w.redis.Addr, "FLUSHALL")
	w.kong.Add(rows("b", 1, func(int) time.Time { return time.Now() })...)
	notifyOnce(t, url)
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
		if err := json.Unmarshal([]byte(line), &n); err != nil {
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
