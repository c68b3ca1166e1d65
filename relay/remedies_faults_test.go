package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

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
		// A call that is under way when the connections are cut ends with EOF.
		{name: "refuses connections", cause: "connection refused|EOF|reset by peer", hint: "start Redis or Valkey", begin: at(redis, func(*namedWorld) frontMode { return frontMode{refused: true} }), over: over},
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
			begin: func(w *namedWorld) { w.secret = other },
			over:  func(w *namedWorld) { w.secret = secret },
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
