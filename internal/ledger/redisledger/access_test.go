package redisledger

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/certtest"
	"github.com/kong-cloudtrail/relay/internal/ledger/ledgertest"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// TestRedisAccess has an ACL user with the least rights, and others with fewer.
func TestRedisAccess(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t)
	plain := plainClient(t, s)
	for _, rule := range [][]any{
		{"ACL", "SETUSER", "relay", "on", ">first", "~relay:*", "+@all", "-@dangerous", "+info"},
		{"ACL", "SETUSER", "blind", "on", ">first", "~relay:*", "+@all", "-@dangerous"},
		{"ACL", "SETUSER", "reader", "on", ">first", "~relay:*", "+@read", "+@connection"},
		{"ACL", "SETUSER", "elsewhere", "on", ">first", "~other:*", "+@all"},
		{"ACL", "SETUSER", "default", "off"},
	} {
		must(t, plain.Do(bg(), rule...).Err())
	}
	var password atomic.Value
	password.Store("first")
	o := redisconn.Options{Addrs: []string{s.Addr}, Credentials: func(context.Context, bool) (string, string, error) {
		return "relay", password.Load().(string), nil
	}}
	ledgertest.Conform(t, redisBackend(o))
	if warnings, err := openRedis(t, o).Check(bg()); err != nil || len(warnings) != 0 {
		t.Errorf("check: %v, %v", warnings, err)
	}
	if warnings, err := openRedis(t, redisconn.Options{Addrs: o.Addrs, Credentials: login("blind", "first")}).Check(bg()); err != nil || len(warnings) != 1 {
		t.Errorf("check by who may not see: %v, %v", warnings, err)
	}

	for name, o := range map[string]redisconn.Options{
		"wrong password": {Credentials: login("relay", "hunter2")},
		"no user":        {Credentials: login("nobody", "hunter2")},
		"no credentials": {},
		"reader":         {Credentials: login("reader", "first")},
		"elsewhere":      {Credentials: login("elsewhere", "first")},
	} {
		o.Addrs = []string{s.Addr}
		err := openRedis(t, o).Begin(bg())
		var settings *audit.SettingsError
		if !errors.As(err, &settings) || audit.Hint(settings) == "" || strings.Contains(err.Error()+audit.Hint(settings), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}

	// A rotated password: the connection that is there goes on, the next one asks again.
	r := openRedis(t, o)
	must(t, r.Ping(bg()))
	admin := redis.NewClient(&redis.Options{Addr: s.Addr, Username: "elsewhere", Password: "first"})
	defer admin.Close()
	must(t, admin.Do(bg(), "ACL", "SETUSER", "relay", ">second", "<first").Err())
	password.Store("second")
	must(t, admin.Do(bg(), "CLIENT", "KILL", "USER", "relay").Err())
	eventually(t, func() error { return r.Ping(bg()) })

	o.Credentials = func(context.Context, bool) (string, string, error) { return "", "", errors.New("secret store is down") }
	if err := openRedis(t, o).Ping(bg()); err == nil || !strings.Contains(err.Error(), "secret store is down") {
		t.Errorf("without credentials: %v", err)
	}
}

// certificates makes a CA and a server's certificate, and returns their files and the CA.
func certificates(t *testing.T) (ca, cert, key string, pool *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, text, 0o600))
		return path
	}
	authority := certtest.New(t, nil)
	server := authority.Issue(t, nil)
	return write("ca.pem", authority.PEM), write("cert.pem", server.PEM), write("key.pem", server.KeyPEM), authority.Pool()
}

func TestRedisTLS(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	ca, cert, key, pool := certificates(t)
	port := redistest.FreePort(t)
	s := redistest.Start(t, "--tls-port", port, "--tls-ca-cert-file", ca, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
	addrs := []string{"127.0.0.1:" + port}
	ledgertest.Conform(t, redisBackend(redisconn.Options{Addrs: addrs, TLS: &tls.Config{RootCAs: pool}}))

	err := openRedis(t, redisconn.Options{Addrs: addrs, TLS: &tls.Config{}}).Ping(bg())
	var settings *audit.SettingsError
	if !errors.As(err, &settings) || audit.Hint(settings) == "" {
		t.Errorf("unknown CA: %v", err)
	}
	// A server that waits for plain text never answers.
	plain := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}, TLS: &tls.Config{RootCAs: pool}, Timeout: 100 * time.Millisecond})
	eventually(t, func() error { // a busy machine may not even connect in that time
		if err := plain.Ping(bg()); err == nil || !strings.HasSuffix(err.Error(), "does it speak TLS?") {
			return fmt.Errorf("plain port: %w", err)
		}
		return nil
	})
}
