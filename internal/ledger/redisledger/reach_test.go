package redisledger

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger/ledgertest"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// TestRedisSentinelPassword has Sentinels that ask for the server's password, for
// another one, and for one that nobody gave.
func TestRedisSentinelPassword(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	primary := redistest.Start(t, "--requirepass", "first", "--masterauth", "first")
	for password, own := range map[string]string{"first": "", "second": "second"} {
		sentinel := redistest.StartSentinel(t, "main", primary, "requirepass "+password, "sentinel auth-pass main first")
		o := redisconn.Options{Addrs: []string{sentinel.Addr}, SentinelMaster: "main", Credentials: login("", "first")}
		if own != "" {
			err := openRedis(t, o).Ping(bg())
			if !audit.NeedsPerson(err) || !strings.Contains(audit.Hint(err), "SENTINEL_PASSWORD") {
				t.Errorf("without the Sentinels' password: %v", err)
			}
			o.SentinelCredentials = func(context.Context, bool) (string, string, error) { return "", own, nil }
		}
		must(t, openRedis(t, o).Ping(bg()))
		o.SentinelMaster = "other"
		if err := openRedis(t, o).Ping(bg()); !audit.NeedsPerson(err) || !strings.Contains(err.Error(), "no master called other") {
			t.Errorf("unknown master: %v", err)
		}
	}
	err := openRedis(t, redisconn.Options{Addrs: []string{primary.Addr}, SentinelMaster: "main", Credentials: login("", "first")}).Ping(bg())
	if !audit.NeedsPerson(err) || !strings.Contains(audit.Hint(err), "name the Sentinels") {
		t.Errorf("a server that is no Sentinel: %v; hint: %s", err, audit.Hint(err))
	}
}

// TestRedisListAccess has a user with exactly the documented rights, who may not
// ask for ROLE, and a list of addresses.
func TestRedisListAccess(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	primary := redistest.Start(t)
	host, port, _ := net.SplitHostPort(primary.Addr)
	replica := redistest.Start(t, "--replicaof", host+" "+port)
	for _, s := range []*redistest.Server{primary, replica} {
		must(t, plainClient(t, s).Do(bg(), "ACL", "SETUSER", "relay", "on", ">first", "~relay:*", "+@all", "-@dangerous", "+info").Err())
	}
	r := openRedis(t, redisconn.Options{Addrs: []string{replica.Addr, primary.Addr}, Credentials: login("relay", "first")})
	must(t, r.Begin(bg()))
	must(t, r.Record(bg(), []audit.Record{ledgertest.Record("c", noon, audit.Delivered)}))
	value(r.Check(bg()))(t)
}

// TestRedisRotated has a server whose password changes, and credentials that are
// kept until they are refused.
func TestRedisRotated(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t, "--requirepass", "first")
	var asked atomic.Int32
	r := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}, Credentials: func(_ context.Context, fresh bool) (string, string, error) {
		if fresh {
			asked.Add(1)
			return "", "second", nil
		}
		if asked.Load() > 0 {
			return "", "second", nil
		}
		return "", "first", nil
	}})
	must(t, r.Ping(bg()))
	must(t, r.client.ConfigSet(bg(), "requirepass", "second").Err())
	must(t, r.client.Do(bg(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no").Err())
	eventually(t, func() error { return r.Ping(bg()) })
	if asked.Load() == 0 {
		t.Error("nobody read the password again")
	}
}

// TestRedisTLSName connects to a certificate that is for a name only.
func TestRedisTLSName(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	ca, cert, key, pool := certificates(t)
	port := redistest.FreePort(t)
	redistest.Start(t, "--tls-port", port, "--tls-ca-cert-file", ca, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
	addrs := []string{"127.0.0.1:" + port}
	err := openRedis(t, redisconn.Options{Addrs: addrs, TLS: &tls.Config{RootCAs: pool, ServerName: "elsewhere"}}).Ping(bg())
	if !audit.NeedsPerson(err) || !strings.Contains(audit.Hint(err), "--redis-tls-server-name") {
		t.Errorf("wrong name: %v", err)
	}
	late := func() time.Time { return time.Now().Add(1000 * time.Hour) }
	err = openRedis(t, redisconn.Options{Addrs: addrs, TLS: &tls.Config{RootCAs: pool, Time: late}}).Ping(bg())
	if !audit.NeedsPerson(err) || !strings.Contains(audit.Hint(err), "expired") {
		t.Errorf("expired: %v", err)
	}
	err = openRedis(t, redisconn.Options{Addrs: addrs}).Ping(bg())
	if err == nil || !strings.Contains(err.Error(), "does it want TLS") {
		t.Errorf("plain TCP: %v", err)
	}
}

// forgetful is a proxy that can forget its connections: what they send is swallowed. It
// passes nothing on before it has a number of them.
type forgetful struct {
	mu        sync.Mutex
	missing   int           // connections that it still waits for
	enough    chan struct{} // closed once there are enough
	epoch     int
	swallowed int // requests
}

func (f *forgetful) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch++
}

// connected returns the epoch of a new connection.
func (f *forgetful) connected() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.missing--; f.missing == 0 {
		close(f.enough)
	}
	return f.epoch
}

// swallows reports whether a request of a connection is swallowed.
func (f *forgetful) swallows(epoch int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if epoch == f.epoch {
		return false
	}
	f.swallowed++
	return true
}

func (f *forgetful) start(t *testing.T, to string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			epoch := f.connected()
			go func() { _, _ = io.Copy(c, up) }()
			go func() {
				defer up.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					<-f.enough
					if !f.swallows(epoch) {
						_, _ = up.Write(buf[:n])
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// TestRedisForgottenConnections lets the network forget all connections during a
// pause: the next call loses half a second for the first one, and takes no other.
func TestRedisForgottenConnections(t *testing.T) {
	const open = 8
	f := &forgetful{missing: open, enough: make(chan struct{})}
	r := openRedis(t, redisconn.Options{Addrs: []string{f.start(t, redistest.Start(t).Addr)}, Timeout: time.Minute})
	var wg sync.WaitGroup
	for range open {
		wg.Go(func() { must(t, r.Ping(bg())) })
	}
	wg.Wait()
	idle := time.Now()
	eventually(t, func() error {
		if time.Since(idle) < 1100*time.Millisecond {
			return errors.New("not idle long enough")
		}
		return nil
	})
	f.forget()
	start := time.Now()
	must(t, r.Ping(bg()))
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.swallowed != 1 {
		t.Errorf("%d requests on connections that were forgotten", f.swallowed)
	}
}

// TestRedisRequestTooLarge has a server that takes no more than a mebibyte.
func TestRedisRequestTooLarge(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t, "--proto-max-bulk-len", "1mb")
	r := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}})
	must(t, r.Begin(bg()))
	large := ledgertest.Record("large", noon, audit.Dead)
	large.Undelivered.Entry.Payload = strings.Repeat("x", 2_000_000)
	if err := r.Record(bg(), []audit.Record{large}); !audit.NeedsPerson(err) || audit.Hint(err) == "" {
		t.Errorf("error %v", err)
	}
	large.Undelivered.Entry.Payload = ""
	must(t, r.Record(bg(), append([]audit.Record{ledgertest.Record("c", noon, audit.Delivered)}, large)))
	equal(t, outcomes(t, r, audit.Entry{ID: "large", Timestamp: noon}), []audit.Outcome{audit.Dead})
}
