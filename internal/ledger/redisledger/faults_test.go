package redisledger

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger/ledgertest"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

func TestRedisServerDown(t *testing.T) {
	t.Parallel()
	port := redistest.FreePort(t)
	r := openRedis(t, redisconn.Options{Addrs: []string{"127.0.0.1:" + port}, Credentials: login("u", "hunter2")})
	err := r.Ping(bg())
	var settings *audit.SettingsError
	if err == nil || errors.As(err, &settings) {
		t.Fatalf("error %v", err)
	}
	if s := err.Error(); !strings.Contains(s, "redis at 127.0.0.1:"+port) || !strings.HasSuffix(s, "is REDIS_HOST right?") || strings.Contains(s, "hunter2") {
		t.Errorf("message %q", s)
	}
}

// TestRedisRestarts kills a server, and starts it again with and without its data.
func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	r := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}})
	must(t, r.Begin(bg()))
	one := []audit.Record{ledgertest.Record("a", noon, audit.Delivered)}
	must(t, r.Record(bg(), one))

	s.Kill()
	err := r.Record(bg(), one)
	var settings *audit.SettingsError
	if err == nil || errors.As(err, &settings) || errors.Is(err, audit.ErrLedgerReplaced) {
		t.Fatalf("with the server down: %v", err)
	}
	s.Restart()
	eventually(t, func() error { return r.Record(bg(), []audit.Record{ledgertest.Record("b", noon, audit.Delivered)}) })
	equal(t, outcomes(t, r, audit.Entry{ID: "a", Timestamp: noon}, audit.Entry{ID: "b", Timestamp: noon}),
		[]audit.Outcome{audit.Delivered, audit.Delivered})

	must(t, plainClient(t, s).ScriptFlush(bg()).Err())
	must(t, r.Record(bg(), one))

	s.Kill()
	must(t, os.RemoveAll(filepath.Join(s.Dir, "appendonlydir")))
	must(t, os.RemoveAll(filepath.Join(s.Dir, "appendonly.aof")))
	s.Restart()
	eventually(t, func() error { return r.Ping(bg()) })
	wantErr(t, r.Record(bg(), one), audit.ErrLedgerReplaced)
	if keys := ledgerKeys(t, r); len(keys) != 0 {
		t.Errorf("written to another ledger: %v", keys)
	}
	must(t, r.Begin(bg()))
	must(t, r.Record(bg(), one))
}

// TestRedisSnapshot restarts a server with an older snapshot of its data.
func TestRedisSnapshot(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t)
	r := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}})
	must(t, r.Begin(bg()))
	lease := value(r.Acquire(bg(), true))(t)
	must(t, r.Record(bg(), []audit.Record{ledgertest.Record("a", noon, audit.Delivered)}))
	must(t, lease.SetMarks(bg(), audit.Marks{Cursor: 1}))
	must(t, plainClient(t, s).Save(bg()).Err())
	must(t, r.Record(bg(), []audit.Record{ledgertest.Record("b", noon, audit.Delivered), ledgertest.Record("c", noon, audit.Dead)}))
	s.Kill()
	s.Restart()
	eventually(t, func() error { return r.Ping(bg()) })
	// Without the sequence these marks would cover entries that nobody remembers.
	wantErr(t, lease.SetMarks(bg(), audit.Marks{Cursor: 2}), audit.ErrLedgerOlder)
	err := r.Begin(bg())
	wantErr(t, err, audit.ErrLedgerOlder)
	must(t, r.Begin(bg()))
	equal(t, value(r.Marks(bg()))(t), audit.Marks{})
	equal(t, outcomes(t, r, audit.Entry{ID: "a", Timestamp: noon}, audit.Entry{ID: "b", Timestamp: noon}, audit.Entry{ID: "c", Timestamp: noon}),
		[]audit.Outcome{audit.Delivered, audit.NoOutcome, audit.NoOutcome})
}

func TestRedisFull(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t)
	r := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}})
	must(t, r.Begin(bg()))
	lease := value(r.Acquire(bg(), true))(t)
	plain := plainClient(t, s)
	must(t, plain.ConfigSet(bg(), "maxmemory", "100kb").Err())
	var settings *audit.SettingsError
	for name, err := range map[string]error{
		"record": r.Record(bg(), []audit.Record{ledgertest.Record("a", noon, audit.Delivered)}),
		"marks":  lease.SetMarks(bg(), audit.Marks{}),
	} {
		if !errors.As(err, &settings) || !strings.Contains(err.Error(), "OOM") || !strings.Contains(audit.Hint(err), "maxmemory") {
			t.Errorf("%s: %v", name, err)
		}
	}
	equal(t, outcomes(t, r, audit.Entry{ID: "a", Timestamp: noon}), []audit.Outcome{audit.NoOutcome})
	value(lease.Renew(bg()))(t)
	must(t, plain.ConfigSet(bg(), "maxmemory", "0").Err())
	must(t, r.Record(bg(), []audit.Record{ledgertest.Record("a", noon, audit.Delivered)}))
}

func TestRedisCheck(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t)
	plain := plainClient(t, s)
	for policy, want := range map[string]string{
		"noeviction": "", "allkeys-lru": "refused", "allkeys-random": "refused", "volatile-ttl": "warned",
	} {
		must(t, plain.ConfigSet(bg(), "maxmemory-policy", policy).Err())
		got := ""
		warnings, err := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}}).Check(bg())
		var settings *audit.SettingsError
		switch {
		case errors.As(err, &settings) && audit.Hint(settings) != "" && strings.Contains(err.Error(), policy):
			got = "refused"
		case err != nil:
			t.Fatal(err)
		case len(warnings) > 0:
			got = "warned"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", policy, got, want)
		}
	}
}

// TestRedisCheckUntold checks servers that answer, but not to the question about
// their policy.
func TestRedisCheckUntold(t *testing.T) {
	t.Parallel()
	servers := map[string]*redistest.Server{"section unknown": redistest.StartMini(t)}
	if haveServer(t) {
		servers["command renamed away"] = redistest.Start(t, "--rename-command", "INFO", "")
	}
	for name, s := range servers {
		warnings, err := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}}).Check(bg())
		if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "make sure that it is noeviction") {
			t.Errorf("%s: warnings %q, error %v", name, warnings, err)
		}
	}
}

// TestRedisAnswersAreExplained has servers that answer and do not serve: the hint is
// about that, not about a server that is down.
func TestRedisAnswersAreExplained(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	renamed := redistest.Start(t, "--rename-command", "HSET", "")
	lonely := redistest.Start(t, "--min-replicas-to-write", "1")
	full := redistest.Start(t, "--maxclients", "2")
	for range 2 {
		conn := plainClient(t, full).Conn()
		t.Cleanup(func() { conn.Close() })
		must(t, conn.Ping(bg()).Err())
	}
	busy := redistest.Start(t, "--lua-time-limit", "20")
	go func() {
		c := redis.NewClient(&redis.Options{Addr: busy.Addr, ReadTimeout: -1, MaxRetries: -1})
		defer c.Close()
		_ = c.Eval(bg(), "while true do end", nil).Err() // until it is killed
	}()
	killer := plainClient(t, busy)
	eventually(t, func() error {
		if err := killer.Get(bg(), "x").Err(); err == nil || !strings.Contains(err.Error(), "BUSY") {
			return fmt.Errorf("not busy: %w", err)
		}
		return nil
	})
	t.Cleanup(func() { _ = killer.ScriptKill(bg()).Err() })
	for what, c := range map[string]struct{ addr, hint string }{
		"a command by another name":     {renamed.Addr, "rename-command"},
		"too few replicas":              {lonely.Addr, "min-replicas-to-write"},
		"a script that runs":            {busy.Addr, "SCRIPT KILL"},
		"too many clients":              {full.Addr, "maxclients"},
		"protected mode":                {answering(t, "-DENIED Redis is running in protected mode because protected mode is enabled\r\n"), "protected mode"},
		"connections that are closed":   {answering(t, ""), "closes connections"},
		"an error that is not known":    {answering(t, "-ERR out of cheese\r\n"), "answers with an error"},
		"a slot that is being migrated": {answering(t, "-TRYAGAIN Multiple keys request during rehashing of slot\r\n"), "is moving"},
	} {
		r := openRedis(t, redisconn.Options{Addrs: []string{c.addr}})
		err := r.Begin(bg())
		if err == nil {
			err = r.Record(bg(), []audit.Record{ledgertest.Record("a", noon, audit.Delivered)})
		}
		if err == nil || !strings.Contains(audit.Hint(err), c.hint) {
			t.Errorf("%s: %v; hint: %s", what, err, audit.Hint(err))
		}
	}
}

// An answer that no script gives says nothing of what was written.
func TestRedisAnswerOfSomethingElse(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"*0\r\n", "*2\r\n$2\r\nok\r\n$1\r\nx\r\n", "*2\r\n$4\r\nnews\r\n:1\r\n"} {
		r := openRedis(t, redisconn.Options{Addrs: []string{answering(t, answer)}})
		r.pin.Set("g", 1)
		wantErr(t, r.Record(bg(), []audit.Record{ledgertest.Record("a", noon, audit.Delivered)}), errAnswer)
		wantErr(t, (&lease{r: r}).SetMarks(bg(), audit.Marks{Cursor: 1}), errAnswer)
		_, err := r.Lookup(bg(), []audit.Entry{{ID: "a", Timestamp: noon}})
		wantErr(t, err, errAnswer)
	}
}

// TestRedisThatDoesNotAnswer has servers that take connections and say nothing.
func TestRedisThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	silent := value(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { silent.Close() })
	for what, c := range map[string]struct {
		addr    string
		timeout time.Duration
		tls     *tls.Config
		hint    string
	}{
		"silent":              {silent.Addr().String(), 100 * time.Millisecond, nil, "load of the ledger's server"},
		"silent over TLS":     {silent.Addr().String(), 100 * time.Millisecond, &tls.Config{MinVersion: tls.VersionTLS12}, "load of the ledger's server"},
		"closing":             {answering(t, ""), 0, nil, "maxclients"},
		"closing without TLS": {answering(t, ""), 0, &tls.Config{MinVersion: tls.VersionTLS12}, "maxclients"},
	} {
		r := openRedis(t, redisconn.Options{Addrs: []string{c.addr}, TLS: c.tls, Timeout: c.timeout})
		eventually(t, func() error { // a busy machine may not even connect in that time
			err := r.Ping(bg())
			if err == nil || !strings.Contains(audit.Hint(err), c.hint) || !strings.Contains(c.hint, "maxclients") && strings.Contains(audit.Hint(err), "start Redis") {
				return fmt.Errorf("%s: %w; hint: %s", what, err, audit.Hint(err))
			}
			return nil
		})
	}
}

// TestRedisThatClosesWithAWord has a server that says why it closes a connection, and does
// not read from it.
func TestRedisThatClosesWithAWord(t *testing.T) {
	t.Parallel()
	l := value(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "-ERR max number of clients reached\r\n")
			_ = c.Close() // with a reset, once the client has written
		}
	}()
	r := openRedis(t, redisconn.Options{Addrs: []string{l.Addr().String()}})
	for range 20 {
		err := r.Ping(bg())
		if err == nil || !strings.Contains(err.Error(), "max number of clients") || !strings.Contains(audit.Hint(err), "maxclients") {
			t.Fatalf("%v; hint: %s", err, audit.Hint(err))
		}
	}
}

// TestRedisCutAfterAnError has a connection end whose last answer was an error: what is asked
// next is not answered with that error.
func TestRedisCutAfterAnError(t *testing.T) {
	t.Parallel()
	if !redistest.Real() {
		t.Log("needs a redis-server")
		return
	}
	ca, cert, key, pool := certificates(t)
	port := redistest.FreePort(t)
	s := redistest.Start(t, "--tls-port", port, "--tls-ca-cert-file", ca, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
	for name, o := range map[string]redisconn.Options{
		"plain": {Addrs: []string{s.Addr}},
		"TLS":   {Addrs: []string{net.JoinHostPort("127.0.0.1", port)}, TLS: &tls.Config{RootCAs: pool}},
	} {
		t.Run(name, func(t *testing.T) {
			r := openNamed(t, o, Options{Prefix: name})
			must(t, r.Begin(bg()))
			c := plainClient(t, s)
			for range 10 {
				must(t, c.Set(bg(), r.keys("announced")[0], "x", 0).Err())
				if _, err := r.Announced(bg()); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
					t.Fatalf("a list of a wrong type: %v", err)
				}
				must(t, c.Del(bg(), r.keys("announced")[0]).Err())
				must(t, c.ClientKillByFilter(bg(), "TYPE", "normal", "SKIPME", "yes").Err())
				for range 3 {
					must(t, r.Ping(bg()))
				}
			}
		})
	}
}

// TestRedisMarksOfSomethingElse has a key of the ledger's written by something else.
func TestRedisMarksOfSomethingElse(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	r := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}})
	must(t, r.Begin(bg()))
	must(t, plainClient(t, s).Set(bg(), r.keys("marks")[0], "0 {\"cur", 0).Err())
	if _, err := r.Marks(bg()); !audit.NeedsPerson(err) || !strings.Contains(audit.Hint(err), "--redis-prefix") || !strings.Contains(err.Error(), s.Addr) ||
		strings.Contains(err.Error(), "TLS") {
		t.Errorf("%v; hint: %s", err, audit.Hint(err))
	}
}

// answering returns the address of a server that answers every request in one way. An
// empty answer closes the connection.
func answering(t *testing.T, answer string) string {
	t.Helper()
	l := value(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for buf := make([]byte, 4096); ; {
					if _, err := c.Read(buf); err != nil || answer == "" {
						return
					}
					if _, err := io.WriteString(c, answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}
