package ledger

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// refusals are answers that trying again cannot heal. A script that is refused
// repeats the word somewhere in its answer; before Redis 7 not at its start.
var refusals = []struct{ word, hint string }{
	{"WRONGPASS", "check REDIS_USERNAME and REDIS_PASSWORD"},
	{"NOAUTH", "set REDIS_PASSWORD, and REDIS_USERNAME for an ACL user"},
	{"invalid password", "check REDIS_PASSWORD"},
	{"without any password configured", "leave REDIS_PASSWORD empty, or set REDIS_USERNAME"},
	{"no password is set", "leave REDIS_PASSWORD empty"},
	{"NOPERM", "let the ACL user do +@all -@dangerous +info on the ledger's keys, ~relay:* unless the prefix was changed"},
	{"WRONGTYPE", "something else than a relay has written a key of the ledger: delete that key, or give the ledger a database of its own (REDIS_DB)"},
	{"invalid bulk length", "let the server take larger requests (proto-max-bulk-len)"},
	{"max request size", "let the server take larger requests"},
	{"DB index", "check REDIS_DB"},
	{"SELECT is not allowed", "set REDIS_DB to 0: a cluster has only that one"},
	{"cluster support disabled", "leave out --redis-cluster: this server is not one"},
	{"unknown command", "use Redis 6.0 or later, or Valkey, with scripts allowed"},
}

func refused(err error, word string) bool {
	var answer redis.Error
	return errors.As(err, &answer) && strings.Contains(answer.Error(), word)
}

func forbidden(err error) bool { return err != nil && refused(err, "NOPERM") }

// unknown says whether the server answered that it does not have what it was
// asked for: a command that was renamed away, or that a proxy in front of the
// server or a stand-in for it lacks, wholly or in part.
func unknown(err error) bool {
	return refused(err, "unknown command") || refused(err, "unsupported command") || refused(err, "not supported")
}

// wrap says what failed and where. What only a person can heal becomes an
// [audit.SettingsError]; all else (no connection, no memory, loading, read-only,
// a cluster that is down) may heal.
func (r *Redis) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	wrapped := fmt.Errorf("%s: redis at %s: %w", doing, r.where, err)
	for _, refusal := range refusals {
		if refused(err, refusal.word) {
			return audit.Settings(wrapped, refusal.hint)
		}
	}
	if _, cluster := r.client.(*redis.ClusterClient); !cluster && redis.HasErrorPrefix(err, "MOVED") {
		return audit.Settings(wrapped, "set --redis-cluster: this server is part of a cluster")
	}
	var (
		unknownCA *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		header    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &unknownCA), errors.As(err, &authority):
		return audit.Settings(wrapped, "set --redis-ca to the CA that signed the server's certificate")
	case errors.As(err, &header):
		return audit.Settings(wrapped, "leave out --redis-tls, or use the server's TLS port")
	case unreachable(err) && r.tls:
		return fmt.Errorf("%w, is REDIS_HOST right, and does it speak TLS?", wrapped)
	case unreachable(err):
		return fmt.Errorf("%w, is REDIS_HOST right?", wrapped)
	}
	return wrapped
}

// unreachable says whether an error is one of the connection. A deadline counts:
// connecting has one of its own.
func unreachable(err error) bool {
	var network net.Error
	return err != nil && !errors.Is(err, context.Canceled) &&
		(errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF))
}
