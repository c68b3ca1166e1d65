package redisconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	sizeHint     = "raise proto-max-bulk-len, or the limit of the service that Redis comes from"
	scriptHint   = "use Redis 6.0 or later, or Valkey, with scripts allowed"
	lateHint     = "look at the load of the ledger's server (SLOWLOG, INFO) and at the network to it: it does not answer in time"
	cutHint      = "start Redis or Valkey if it is down; else look at its log: it, or something between, closes connections (maxclients, client-output-buffer-limit, tls-auth-clients, a load balancer)"
	sentinelHint = "name the Sentinels (port 26379 as a rule) with REDIS_HOST, or leave out --redis-sentinel-master"
	// KeysHint is for an answer that says that a key is not what the ledger makes of it.
	KeysHint   = "something else writes keys of these names: give the ledger a --redis-prefix or a Redis of its own"
	rightsHint = "let the ACL user do +@all -@dangerous +info on the ledger's keys, ~relay:* unless the prefix was changed"
)

// refusals are answers that trying again cannot change. A script that is refused
// repeats the text somewhere in its answer; before Redis 7 not at its start.
var refusals = []struct{ text, hint string }{
	{"WRONGPASS", "check REDIS_USERNAME and REDIS_PASSWORD"},
	{"NOAUTH", "set REDIS_PASSWORD, and REDIS_USERNAME for an ACL user"},
	{"unauthenticated", "set REDIS_PASSWORD, and REDIS_USERNAME for an ACL user"}, // the answer to a large request
	{"invalid password", "check REDIS_PASSWORD"},
	{"without any password configured", "leave REDIS_PASSWORD empty, or set REDIS_USERNAME"},
	{"no password is set", "leave REDIS_PASSWORD empty"},
	{"NOPERM", rightsHint},
	{"can't access at least one of the keys", rightsHint},
	{"can't run this command", rightsHint},
	{"WRONGTYPE", KeysHint},
	{"wrong kind of value", KeysHint},
	// Nothing of a full server's goes by itself, as the ledger's keys live for weeks.
	{"OOM", "Redis is full: raise its maxmemory, or remove what does not belong to the ledger"},
	{"undeclared key", "let the server's scripts run as those of Redis do"},
	{"invalid bulk length", sizeHint},
	{"max request size", sizeHint},
	{"DB index", "check REDIS_DB"},
	{"SELECT is not allowed", "set REDIS_DB to 0: a cluster has only that one"},
	{"cluster support disabled", "leave out --redis-cluster: this server is not one"},
	{"unknown command 'sentinel'", sentinelHint},
	{"unknown command `sentinel`", sentinelHint}, // before Redis 7
	{"unknown command", scriptHint},
	{"Unknown Redis command", "let the server have the commands of Redis by their names: rename-command has renamed one that the ledger's scripts use"},
	{"DENIED", "the server takes connections from its own machine only (protected mode): give it a password, and set REDIS_PASSWORD"},
}

// states are answers that end once somebody has done something, or by themselves.
var states = []struct{ text, hint string }{
	{"READONLY", "REDIS_HOST reaches a replica: name the primary, or all nodes, or the Sentinels; during a failover, wait"},
	{"LOADING", "Redis is loading its data after a start: wait until it has"},
	{"MISCONF", "Redis cannot save its data and refuses writes: look at its log, and at the space and rights of its disk"},
	{"MASTERDOWN", "the primary of this replica is gone: start it, or promote a replica"},
	{"CLUSTERDOWN", "the cluster does not serve all slots: look at CLUSTER INFO, and start or replace the nodes that are missing"},
	{"NOREPLICAS", "the server takes writes only while enough replicas follow it (min-replicas-to-write): start or reconnect its replicas"},
	{"BUSY", "a script or function of another client keeps the server busy: wait, or end it with SCRIPT KILL or FUNCTION KILL"},
	{"TRYAGAIN", "the cluster is moving the ledger's slot to another node: wait, or finish the move (CLUSTER NODES shows it)"},
	{"max number of clients", "Redis takes no more connections: raise its maxclients, or find out who holds so many (CLIENT LIST)"},
}

// refused reports whether a server answered with an error that holds a text.
func refused(err error, text string) bool {
	var answer redis.Error
	return errors.As(err, &answer) && strings.Contains(answer.Error(), text)
}

// denied reports whether a server refused the credentials.
func denied(err error) bool {
	return refused(err, "WRONGPASS") || refused(err, "NOAUTH") || refused(err, "unauthenticated") || refused(err, "invalid password")
}

// Unknown reports whether the server answered that it does not have what it was
// asked for: a command that was renamed away, or that a proxy in front of the
// server or a stand-in for it lacks, wholly or in part.
func Unknown(err error) bool {
	return refused(err, "unknown command") || refused(err, "unsupported command") || refused(err, "not supported")
}

// unreachable reports whether an error is one of the connection. A deadline counts:
// connecting has one as well.
func unreachable(err error) bool {
	return !errors.Is(err, context.Canceled) && (is[net.Error](err) || errors.Is(err, context.DeadlineExceeded) || Cut(err))
}

// Cut reports whether the server, or something between, closed the connection.
func Cut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// TooLarge is the error for a request that the server does not take because of its size.
func TooLarge(err error) error { return audit.NewSettingsError(err, sizeHint) }

// isLate reports whether a server that was connected to has not answered in time.
func isLate(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return false
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// Wrap says what failed and where. What only a person can mend becomes an
// [audit.SettingsError]; all else (no connection, loading, read-only,
// a cluster that is down) may pass.
func (c *Client) Wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	wrapped := fmt.Errorf("%s: redis at %s: %w", doing, c.Where, err)
	if audit.NeedsPerson(err) {
		return wrapped
	}
	for _, refusal := range refusals {
		if refused(err, refusal.text) {
			return audit.NewSettingsError(wrapped, refusal.hint)
		}
	}
	for _, state := range states {
		if refused(err, state.text) {
			return audit.WithHint(wrapped, state.hint)
		}
	}
	if _, cluster := c.UniversalClient.(*redis.ClusterClient); !cluster && redis.HasErrorPrefix(err, "MOVED") {
		return audit.NewSettingsError(wrapped, "set --redis-cluster: this server is part of a cluster")
	}
	if hint := otherHint(err); hint != "" { // which something on the way may say once: what was put is still to be recorded
		return audit.WithHint(wrapped, hint)
	}
	if hint := tlsHint(err); hint != "" {
		return audit.NewSettingsError(wrapped, hint)
	}
	if is[redis.Error](err) {
		return audit.WithHint(wrapped, "the server answers with an error that the relay does not know: look it up, and at the server's log")
	}
	return c.explainConnection(wrapped)
}

// explainConnection adds what may be wrong to an error of a connection.
func (c *Client) explainConnection(err error) error {
	switch {
	case is[*net.DNSError](err):
		return audit.WithHint(err, "check that the host in REDIS_HOST is spelt right and known to this machine's DNS")
	case isLate(err) && c.tls:
		return audit.WithHint(fmt.Errorf("%w, is REDIS_HOST right, and does it speak TLS?", err),
			lateHint+"; leave out --redis-tls and --redis-ca if REDIS_HOST speaks no TLS")
	case isLate(err):
		return audit.WithHint(err, lateHint)
	case Cut(err) && c.tls:
		return audit.WithHint(fmt.Errorf("%w, does REDIS_HOST speak TLS?", err), cutHint+"; leave out --redis-tls and --redis-ca if REDIS_HOST speaks no TLS")
	case unreachable(err) && c.tls:
		return audit.WithHint(fmt.Errorf("%w, is REDIS_HOST right, and does it speak TLS?", err),
			"start Redis or Valkey, or name its TLS port with REDIS_HOST; leave out --redis-tls and --redis-ca if it speaks none")
	case Cut(err):
		return audit.WithHint(fmt.Errorf("%w, does it want TLS (--redis-tls)?", err),
			cutHint+"; set --redis-tls if it speaks TLS only")
	case unreachable(err):
		return fmt.Errorf("%w, is REDIS_HOST right?", err)
	}
	return err
}

// otherHint returns a hint for an answer that is not one of Redis's protocol, or "". The client has
// no type for it, and quotes the answer.
func otherHint(err error) string {
	_, text, found := strings.Cut(err.Error(), "redis: can't parse ")
	if !found {
		_, text, _ = strings.Cut(err.Error(), "redis: invalid reply: ")
	}
	_, answer, _ := strings.Cut(text, `"`)
	switch {
	case strings.HasPrefix(answer, "HTTP/"), strings.HasPrefix(answer, "<"): // a page of HTML without a header
		return "what listens there speaks HTTP, so it is not Redis: check host and port in REDIS_HOST (6379 as a rule)"
	case strings.HasPrefix(answer, `\x15\x03`): // an alert
		return "what listens there speaks TLS only: set --redis-tls"
	case answer != "":
		return "what listens there does not speak Redis's protocol: check host and port in REDIS_HOST (6379 as a rule)"
	}
	return ""
}

// tlsHint returns a hint for a connection that TLS refused, or "".
func tlsHint(err error) string {
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		hint := "set --redis-tls-server-name to a name that the server's certificate is for"
		if name.Certificate != nil && len(name.Certificate.DNSNames) > 0 {
			hint += ": " + strings.Join(name.Certificate.DNSNames, ", ")
		}
		return hint
	}
	invalid, _ := errors.AsType[x509.CertificateInvalidError](err)
	remote, _ := errors.AsType[*net.OpError](err)
	switch {
	case invalid.Reason == x509.Expired:
		return "renew the server's certificate, which has expired or is not valid yet, or set this machine's clock"
	case is[x509.UnknownAuthorityError](err), is[*tls.CertificateVerificationError](err):
		return "set --redis-ca to the CA that signed the server's certificate"
	case is[tls.RecordHeaderError](err):
		return "leave out --redis-tls, or use the server's TLS port"
	case is[tls.AlertError](err), remote != nil && remote.Op == "remote error":
		return "the server refused the connection over TLS: turn off its wish for a client's certificate (tls-auth-clients no), and let it speak TLS 1.2 or later"
	}
	return ""
}

// is reports whether an error, or one that it wraps, is of a type.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
