package ledger

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// TestMiniredis keeps the stand-in usable for who has no redis-server.
func TestMiniredis(t *testing.T) {
	conform(t, redisBackend(RedisOptions{Addrs: []string{redistest.StartMini(t).Addr}}))
}

// TestRedisBuckets checks what no method shows: that every bucket is packed and
// expires, and when.
func TestRedisBuckets(t *testing.T) {
	if !haveServer(t) {
		return
	}
	r := openRedis(t, RedisOptions{Addrs: []string{redistest.Start(t).Addr}})
	value(r.Begin(bg()))(t)
	const day = 24 * time.Hour
	left := map[string]time.Duration{} // id → what its bucket must live at least
	days := map[string]string{}
	put := func(from, n int, at int64, keep time.Duration) {
		t.Helper()
		var records []audit.Record
		for i := from; i < from+n; i++ {
			rec := record(testID(i), at, audit.Delivered)
			if i%50 == 0 {
				rec = record(testID(i), at, audit.Dead)
			}
			rec.Keep = keep
			records = append(records, rec)
			left[rec.ID], days[rec.ID] = max(left[rec.ID], keep+day, 26*time.Hour), dayName(dayOf(at))
		}
		must(t, r.Record(bg(), records))
	}
	put(0, 100, noon, 30*day)
	put(0, 100, noon, time.Hour)      // must not shorten
	put(100, 50, noon, time.Minute)   // nor these
	put(150, 3000, noon, 2*time.Hour) // splits
	put(4000, 5000, noon+86400, 10*day)
	put(9000, 1500, noon+86400, 20*day)
	put(11000, 10, 0, 0)
	put(12000, 10, -1, -time.Hour)
	put(13000, 10, 1<<60, day)
	token := value(r.Acquire(bg()))(t)
	must(t, r.SetMarks(bg(), token, audit.Marks{Cursor: 1}))
	value(r.Claim(bg(), "x", time.Hour))(t)
	must(t, r.Bind(bg(), "http://kong:8001", false))
	must(t, r.Announce(bg(), []string{"x"}, time.Now()))
	if _, err := r.Acquire(bg()); !errors.Is(err, audit.ErrLeaseHeld) {
		t.Fatal(err)
	}

	forEver := map[string]bool{"gen": true, "marks": true, "kong": true, "letters": true, "dead": true, "parked": true, "word": true}
	found, buckets := 0, 0
	for _, key := range ledgerKeys(t, r) {
		name := strings.TrimPrefix(key, r.prefix)
		ttl := value(r.client.TTL(bg(), key).Result())(t)
		if (ttl < 0) != forEver[name] {
			t.Errorf("%s: time to live %v", name, ttl)
		}
		date, node, isBucket := strings.Cut(name, ":")
		if !isBucket || date == "claim" {
			continue
		}
		buckets++
		fields := value(r.client.HGetAll(bg(), key).Result())(t)
		if len(fields) > 192 {
			t.Errorf("%s has %d fields", name, len(fields))
		}
		if e := value(r.client.ObjectEncoding(bg(), key).Result())(t); e != "listpack" && e != "ziplist" {
			t.Errorf("%s is a %s", name, e)
		}
		if node != "1" {
			if dir := value(r.client.TTL(bg(), r.prefix+date).Result())(t); dir < ttl {
				t.Errorf("bitmap of %s expires after %v, node %s after %v", date, dir, node, ttl)
			}
		}
		for id := range fields {
			found++
			if days[id] != date {
				t.Errorf("%s in %s, not in %s", id, name, days[id])
			}
			if ttl < left[id]-time.Minute {
				t.Errorf("%s: %s lives %v, must %v", name, id, ttl, left[id])
			}
		}
	}
	if found != len(left) {
		t.Errorf("%d ids in buckets, recorded %d", found, len(left))
	}
	t.Logf("%d ids in %d buckets", found, buckets)
	letters, err := r.client.HLen(bg(), r.prefix+"letters").Result()
	must(t, err)
	if letters == 0 {
		t.Error("no letters")
	}
}

// TestRedisSplitsInSteps fills the buckets of a day nearly, and then all of them
// at once: that is more than one call may move.
func TestRedisSplitsInSteps(t *testing.T) {
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t)
	r := openRedis(t, RedisOptions{Addrs: []string{s.Addr}})
	value(r.Begin(bg()))(t)
	plain := plainClient(t, s)
	calls := func() (n int) {
		t.Helper()
		info := value(plain.Info(bg(), "commandstats").Result())(t)
		for line := range strings.Lines(info) {
			if v, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
				v, _, _ = strings.Cut(v, ",")
				n = value(strconv.Atoi(v))(t)
			}
		}
		return n
	}
	var entries []audit.Entry
	var want []audit.Outcome
	steps, n := 0, 0
	for n < 12_000 {
		var records []audit.Record
		for range 500 {
			outcome := audit.Delivered
			if n%100 == 0 {
				outcome = audit.Dead
			}
			records = append(records, record(testID(n), noon, outcome))
			entries, want = append(entries, audit.Entry{ID: testID(n), Timestamp: noon}), append(want, outcome)
			n++
		}
		before := calls()
		must(t, r.Record(bg(), records))
		steps = max(steps, calls()-before)
	}
	equal(t, outcomes(t, r, entries...), want)
	dead, _, err := r.LetterCounts(bg())
	must(t, err)
	equal(t, dead, n/100)
	if steps < 2 {
		t.Errorf("no call left anything over")
	}
	t.Logf("at most %d calls for 500 records", steps)
}

// FuzzAddress looks for a password that would be kept, and for two forms of one address.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"http://kong:8001", "HTTPS://u:hunter2@Kong:8444//", "kong:8001", "", "://", "http://[::1]:8001/a/?q#f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := address(s)
		if again := address(once); again != once {
			t.Errorf("%q becomes %q, then %q", s, once, again)
		}
		if u, err := url.Parse(s); err == nil && u.Host != "" && u.User != nil {
			if kept, err := url.Parse(once); err != nil || kept.User != nil {
				t.Errorf("%q keeps its user: %q", s, once)
			}
		}
	})
}

// TestRedisExpires sees a bucket go.
func TestRedisExpires(t *testing.T) {
	s := redistest.StartMini(t)
	r := openRedis(t, RedisOptions{Addrs: []string{s.Addr}})
	value(r.Begin(bg()))(t)
	rec := record("a", noon, audit.Dead)
	rec.Keep = 0
	must(t, r.Record(bg(), []audit.Record{rec}))
	s.Forward(25*time.Hour + 59*time.Minute)
	equal(t, outcomes(t, r, audit.Entry{ID: "a", Timestamp: noon}), []audit.Outcome{audit.Dead})
	s.Forward(2 * time.Minute)
	equal(t, outcomes(t, r, audit.Entry{ID: "a", Timestamp: noon}), []audit.Outcome{audit.New})
	_, ok, err := r.Letter(bg(), "a")
	must(t, err)
	equal(t, ok, true)
}

func TestRedisServerDown(t *testing.T) {
	port := redistest.FreePort(t)
	r := openRedis(t, RedisOptions{Addrs: []string{"127.0.0.1:" + port}, Username: "u", Password: "hunter2"})
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
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	r := openRedis(t, RedisOptions{Addrs: []string{s.Addr}})
	value(r.Begin(bg()))(t)
	one := []audit.Record{record("a", noon, audit.Delivered)}
	must(t, r.Record(bg(), one))

	s.Kill()
	err := r.Record(bg(), one)
	var settings *audit.SettingsError
	if err == nil || errors.As(err, &settings) || errors.Is(err, audit.ErrLedgerReplaced) {
		t.Fatalf("with the server down: %v", err)
	}
	s.Restart()
	eventually(t, func() error { return r.Record(bg(), []audit.Record{record("b", noon, audit.Delivered)}) })
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
	equal(t, value(r.Begin(bg()))(t), true)
	must(t, r.Record(bg(), one))
}

func TestRedisFull(t *testing.T) {
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t)
	r := openRedis(t, RedisOptions{Addrs: []string{s.Addr}})
	value(r.Begin(bg()))(t)
	token := value(r.Acquire(bg()))(t)
	plain := plainClient(t, s)
	must(t, plain.ConfigSet(bg(), "maxmemory", "100kb").Err())
	var settings *audit.SettingsError
	for name, err := range map[string]error{
		"record": r.Record(bg(), []audit.Record{record("a", noon, audit.Delivered)}),
		"marks":  r.SetMarks(bg(), token, audit.Marks{}),
	} {
		if err == nil || errors.As(err, &settings) || !strings.Contains(err.Error(), "OOM") {
			t.Errorf("%s: %v", name, err)
		}
	}
	equal(t, outcomes(t, r, audit.Entry{ID: "a", Timestamp: noon}), []audit.Outcome{audit.New})
	must(t, r.Renew(bg(), token))
	must(t, plain.ConfigSet(bg(), "maxmemory", "0").Err())
	must(t, r.Record(bg(), []audit.Record{record("a", noon, audit.Delivered)}))
}

func TestRedisCheck(t *testing.T) {
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
		warnings, err := openRedis(t, RedisOptions{Addrs: []string{s.Addr}}).Check(bg())
		var settings *audit.SettingsError
		switch {
		case errors.As(err, &settings) && settings.Hint != "" && strings.Contains(err.Error(), policy):
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

// TestRedisAccess has an ACL user with the least rights, and others with fewer.
func TestRedisAccess(t *testing.T) {
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
	o := RedisOptions{Addrs: []string{s.Addr}, Credentials: func(context.Context) (string, string, error) {
		return "relay", password.Load().(string), nil
	}}
	conform(t, redisBackend(o))
	if warnings, err := openRedis(t, o).Check(bg()); err != nil || len(warnings) != 0 {
		t.Errorf("check: %v, %v", warnings, err)
	}
	if warnings, err := openRedis(t, RedisOptions{Addrs: o.Addrs, Username: "blind", Password: "first"}).Check(bg()); err != nil || len(warnings) != 1 {
		t.Errorf("check by who may not see: %v, %v", warnings, err)
	}

	for name, o := range map[string]RedisOptions{
		"wrong password": {Username: "relay", Password: "hunter2"},
		"no user":        {Username: "nobody", Password: "hunter2"},
		"no credentials": {},
		"reader":         {Username: "reader", Password: "first"},
		"elsewhere":      {Username: "elsewhere", Password: "first"},
	} {
		o.Addrs = []string{s.Addr}
		_, err := openRedis(t, o).Begin(bg())
		var settings *audit.SettingsError
		if !errors.As(err, &settings) || settings.Hint == "" || strings.Contains(err.Error()+settings.Hint, "hunter2") {
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

	o.Credentials = func(context.Context) (string, string, error) { return "", "", errors.New("secret store is down") }
	if err := openRedis(t, o).Ping(bg()); err == nil || !strings.Contains(err.Error(), "secret store is down") {
		t.Errorf("without credentials: %v", err)
	}
}

// certificates makes a CA and a server's certificate, and returns their files and the CA.
func certificates(t *testing.T) (ca, cert, key string, pool *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	caKey := value(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der := value(x509.CreateCertificate(rand.Reader, template, template, &caKey.PublicKey, caKey))(t)
	parent := value(x509.ParseCertificate(der))(t)
	serverKey := value(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	leaf := value(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "redis"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}, parent, &serverKey.PublicKey, caKey))(t)
	pool = x509.NewCertPool()
	pool.AddCert(parent)
	return write("ca.pem", "CERTIFICATE", der), write("cert.pem", "CERTIFICATE", leaf),
		write("key.pem", "PRIVATE KEY", value(x509.MarshalPKCS8PrivateKey(serverKey))(t)), pool
}

func TestRedisTLS(t *testing.T) {
	if !haveServer(t) {
		return
	}
	ca, cert, key, pool := certificates(t)
	port := redistest.FreePort(t)
	s := redistest.Start(t, "--tls-port", port, "--tls-ca-cert-file", ca, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
	addrs := []string{"127.0.0.1:" + port}
	conform(t, redisBackend(RedisOptions{Addrs: addrs, TLS: &tls.Config{RootCAs: pool}}))

	err := openRedis(t, RedisOptions{Addrs: addrs, TLS: &tls.Config{}}).Ping(bg())
	var settings *audit.SettingsError
	if !errors.As(err, &settings) || settings.Hint == "" {
		t.Errorf("unknown CA: %v", err)
	}
	// A server that waits for plain text never answers.
	err = openRedis(t, RedisOptions{Addrs: []string{s.Addr}, TLS: &tls.Config{RootCAs: pool}, Timeout: 100 * time.Millisecond}).Ping(bg())
	if err == nil || !strings.HasSuffix(err.Error(), "does it speak TLS?") {
		t.Errorf("plain port: %v", err)
	}
}

// TestRedisList has a primary and a replica, of which nobody says which is which.
func TestRedisList(t *testing.T) {
	if !haveServer(t) {
		return
	}
	primary := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(primary.Addr)
	replica := redistest.Start(t, "--replicaof", host+" "+port)
	second := plainClient(t, replica)
	eventually(t, func() error {
		info, err := second.Info(bg(), "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = errors.New("no link")
		}
		return err
	})
	list := []string{replica.Addr, primary.Addr}
	conform(t, redisBackend(RedisOptions{Addrs: list}))

	r := openRedis(t, RedisOptions{Addrs: list, DB: 3, Timeout: time.Second})
	value(r.Begin(bg()))(t)
	must(t, r.Record(bg(), []audit.Record{record("a", noon, audit.Delivered)}))
	if n := value(plainClient(t, primary).DBSize(bg()).Result())(t); n == 0 {
		t.Error("nothing at the primary") // the suite has left something in database 0
	}

	// Read-only: an error that heals.
	only := openRedis(t, RedisOptions{Addrs: []string{replica.Addr}, DB: 3})
	_, err := only.Begin(bg())
	must(t, err) // it only reads: the ledger is there
	var settings *audit.SettingsError
	err = only.Record(bg(), []audit.Record{record("b", noon, audit.Delivered)})
	if err == nil || errors.As(err, &settings) || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("replica: %v", err)
	}

	offset := func(c *redis.Client, field string) int {
		info := value(c.Info(bg(), "replication").Result())(t)
		for line := range strings.Lines(info) {
			if v, ok := strings.CutPrefix(line, field+":"); ok {
				return value(strconv.Atoi(strings.TrimSpace(v)))(t)
			}
		}
		t.Fatalf("no %s", field)
		return 0
	}
	first := plainClient(t, primary)
	eventually(t, func() error {
		if a, b := offset(first, "master_repl_offset"), offset(second, "slave_repl_offset"); a != b {
			return fmt.Errorf("offsets %d and %d", a, b)
		}
		return nil
	})
	primary.Kill()
	must(t, second.Do(bg(), "REPLICAOF", "NO", "ONE").Err())
	eventually(t, func() error { return r.Record(bg(), []audit.Record{record("b", noon, audit.Delivered)}) })
	must(t, only.Record(bg(), []audit.Record{record("c", noon, audit.Delivered)}))
	equal(t, outcomes(t, r, audit.Entry{ID: "a", Timestamp: noon}, audit.Entry{ID: "b", Timestamp: noon}, audit.Entry{ID: "c", Timestamp: noon}),
		[]audit.Outcome{audit.Delivered, audit.Delivered, audit.Delivered})
}

func TestRedisSentinel(t *testing.T) {
	if !haveServer(t) {
		return
	}
	primary := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, "main", primary)
	conform(t, redisBackend(RedisOptions{Addrs: []string{sentinel.Addr}, SentinelMaster: "main"}))
}

// TestRedisCluster has three primaries. Every ledger is in one slot, and the
// suite's ledgers are spread over all of them.
func TestRedisCluster(t *testing.T) {
	if !haveServer(t) {
		return
	}
	var nodes []*redistest.Server
	for i := range 3 {
		n := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
		must(t, plainClient(t, n).Do(bg(), "CLUSTER", "ADDSLOTSRANGE", i*16384/3, (i+1)*16384/3-1).Err())
		nodes = append(nodes, n)
	}
	for _, n := range nodes[1:] {
		host, port, _ := net.SplitHostPort(nodes[0].Addr)
		must(t, plainClient(t, n).Do(bg(), "CLUSTER", "MEET", host, port).Err())
	}
	for _, n := range nodes {
		c := plainClient(t, n)
		eventually(t, func() error {
			info, err := c.ClusterInfo(bg()).Result()
			if err == nil && (!strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3")) {
				err = errors.New("cluster is not ready")
			}
			return err
		})
	}
	t.Run("one address", func(t *testing.T) {
		conform(t, redisBackend(RedisOptions{Addrs: []string{nodes[1].Addr}, Cluster: true}))
	})
	t.Run("list", func(t *testing.T) {
		conform(t, redisBackend(RedisOptions{Addrs: []string{nodes[0].Addr, nodes[1].Addr}}))
	})
	r := openRedis(t, RedisOptions{Addrs: []string{nodes[0].Addr}, Cluster: true})
	if warnings, err := r.Check(bg()); err != nil || len(warnings) != 0 {
		t.Errorf("check: %v, %v", warnings, err)
	}
	must(t, plainClient(t, nodes[2]).ConfigSet(bg(), "maxmemory-policy", "allkeys-lfu").Err())
	if _, err := r.Check(bg()); err == nil {
		t.Error("an evicting node was not refused")
	}
	moved := 0
	for _, n := range nodes {
		_, err := openRedis(t, RedisOptions{Addrs: []string{n.Addr}}).Begin(bg())
		var settings *audit.SettingsError
		if errors.As(err, &settings) && strings.Contains(settings.Hint, "--redis-cluster") {
			moved++
		} else if err != nil {
			t.Errorf("without cluster mode: %v", err)
		}
	}
	if moved != 2 {
		t.Errorf("%d of 3 nodes sent elsewhere, want 2", moved)
	}
}

func TestOpenRedisRefuses(t *testing.T) {
	for name, o := range map[string]RedisOptions{
		"cluster and sentinel": {Cluster: true, SentinelMaster: "main"},
		"cluster and database": {Cluster: true, DB: 1},
	} {
		if _, err := OpenRedis(bg(), o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	r := openRedis(t, RedisOptions{Addrs: []string{" a ", "", "b:1"}, Prefix: "x{y}", Source: "k}1", Destination: "d{"})
	if r.where != "a:6379,b:1" || r.prefix != "x%7By%7D:{k%7D1>d%7B}:" {
		t.Errorf("where %q, prefix %q", r.where, r.prefix)
	}
}
