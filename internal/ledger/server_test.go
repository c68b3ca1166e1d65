package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.etcd.io/bbolt"
)

// redisServer is the path of redis-server, or empty: then miniredis stands in.
var redisServer string

func TestMain(m *testing.M) {
	path, err := exec.LookPath("redis-server")
	switch {
	case err == nil:
		redisServer = path
		out, _ := exec.Command(path, "--version").Output()
		version := regexp.MustCompile(`v=(\S+)`).FindSubmatch(out)
		if version == nil {
			fmt.Printf("ledger tests: redis-server, version unknown\n")
		} else {
			fmt.Printf("ledger tests: redis-server %s\n", version[1])
		}
	case os.Getenv("RELAY_TEST_REQUIRE_REDIS") == "1":
		fmt.Println("ledger tests: RELAY_TEST_REQUIRE_REDIS=1 but there is no redis-server on PATH")
		os.Exit(1)
	default:
		fmt.Println("ledger tests: miniredis; no redis-server on PATH")
	}
	LogTo(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// haveServer says whether there is a redis-server for a test of what miniredis cannot do.
func haveServer(tb testing.TB) bool {
	tb.Helper()
	if redisServer == "" {
		tb.Log("no redis-server on PATH: only RELAY_TEST_REQUIRE_REDIS=1 makes that a failure")
	}
	return redisServer != ""
}

// server is a redis-server of one test.
type server struct {
	tb   testing.TB
	addr string
	args []string
	dir  string

	mu  sync.Mutex
	cmd *exec.Cmd
	end chan struct{}
	log *bytes.Buffer
}

// freePort returns a port of the loopback interface that is free, together with
// the one 10,000 above it, which a cluster's bus would take.
func freePort(tb testing.TB) string {
	tb.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if port+10000 > 65535 || port == 6379 {
			continue
		}
		bus, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+10000))
		if err != nil {
			continue
		}
		bus.Close()
		return fmt.Sprint(port)
	}
	tb.Fatal("no free port")
	return ""
}

// startServer starts a redis-server and stops it with the test.
func startServer(tb testing.TB, args ...string) *server {
	tb.Helper()
	port := freePort(tb)
	s := &server{tb: tb, addr: "127.0.0.1:" + port, dir: tb.TempDir()}
	s.args = append([]string{
		"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no",
	}, args...)
	s.start()
	tb.Cleanup(s.kill)
	return s
}

// startSentinel starts a Sentinel with a configuration, which it will rewrite.
func startSentinel(tb testing.TB, config string) *server {
	tb.Helper()
	port := freePort(tb)
	s := &server{tb: tb, addr: "127.0.0.1:" + port}
	s.args = []string{config, "--port", port, "--bind", "127.0.0.1", "--sentinel"}
	s.start()
	tb.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = &bytes.Buffer{}
	s.cmd = exec.Command(redisServer, s.args...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	end, cmd := make(chan struct{}), s.cmd
	s.end = end
	go func() {
		defer close(end)
		_ = cmd.Wait()
	}()
	eventually(s.tb, func() error {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// kill ends the server at once and waits for it.
func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.cmd.Process.Kill()
	<-s.end
}

// client returns a plain client of the server.
func (s *server) client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.addr, Protocol: 2, DisableIdentity: true})
	s.tb.Cleanup(func() { c.Close() })
	return c
}

// eventually tries until there is no error, for 15 seconds.
func eventually(tb testing.TB, try func() error) {
	tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(15 * time.Second); ; <-tick.C {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			tb.Fatalf("still: %v", err)
		}
	}
}

// sharedRedis returns the address of a server that tests share, each with keys of its own.
func sharedRedis(tb testing.TB) string {
	tb.Helper()
	if redisServer == "" {
		tb.Log("ledger in miniredis")
		return startMiniredis(tb)
	}
	tb.Log("ledger in redis-server")
	return startServer(tb).addr
}

// startMiniredis starts a miniredis whose clock goes on by itself.
func startMiniredis(tb testing.TB) string {
	tb.Helper()
	m := miniredis.RunT(tb)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-stop:
				return
			case now := <-tick.C:
				m.FastForward(now.Sub(last))
				last = now
			}
		}
	}()
	tb.Cleanup(func() {
		close(stop)
		<-stopped
	})
	return m.Addr()
}

func openRedis(tb testing.TB, o RedisOptions) *Redis {
	tb.Helper()
	if o.Source == "" {
		o.Source, o.Destination = "kong", "arn:aws:cloudtrail:eu-west-1:123456789012:channel/0d4e4d2a-1c3e-4f6b-9f7e-0a1b2c3d4e5f"
	}
	r, err := OpenRedis(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
			tb.Error(err)
		}
	})
	return r
}

func bg() context.Context { return context.Background() }

// testID is an id as Kong makes them, the same for the same number.
func testID(n int) string {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	var b strings.Builder
	x := uint64(n)*0x9E3779B97F4A7C15 + 0x1234567
	for range 32 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b.WriteByte(letters[x%62])
	}
	return b.String()
}

// ledgerKeys returns the keys of a ledger, on whatever server they are.
func ledgerKeys(tb testing.TB, r *Redis) []string {
	tb.Helper()
	var client redis.Cmdable = r.client
	if cluster, ok := r.client.(*redis.ClusterClient); ok {
		node, err := cluster.MasterForKey(bg(), r.prefix+"gen")
		if err != nil {
			tb.Fatal(err)
		}
		client = node
	}
	var keys []string
	scan := client.Scan(bg(), 0, r.prefix+"*", 1000).Iterator()
	for scan.Next(bg()) {
		keys = append(keys, scan.Val())
	}
	if err := scan.Err(); err != nil {
		tb.Fatal(err)
	}
	return keys
}

func emptyRedis(tb testing.TB, r *Redis) {
	tb.Helper()
	for _, key := range ledgerKeys(tb, r) {
		if err := r.client.Del(bg(), key).Err(); err != nil {
			tb.Fatal(err)
		}
	}
}

func emptyBolt(tb testing.TB, b *Bolt) {
	tb.Helper()
	err := b.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range allBuckets {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
}
