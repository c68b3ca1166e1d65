// Package redistest starts Redis servers for tests: a real redis-server where
// there is one on the PATH, and miniredis otherwise.
package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// Require is the variable that makes tests fail where there is no redis-server.
const Require = "RELAY_TEST_REQUIRE_REDIS"

// program looks for the server anew for each test that asks. So go test, which keeps results
// and does not see what TestMain does, knows that they depend on PATH.
func program() string {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return ""
	}
	return path
}

// Real tells whether servers are real ones.
func Real() bool { return program() != "" }

// Announce prints which Redis a package's tests use, and fails if Require asks
// for a real one that is not there. Call it in TestMain.
func Announce(name string) error {
	if err := required(); err != nil {
		return err
	}
	if !Real() {
		fmt.Printf("%s tests: miniredis; no redis-server on PATH\n", name)
		return nil
	}
	version, err := exec.Command(program(), "--version").Output()
	fmt.Printf("%s tests: %s", name, version)
	return err
}

func required() error {
	if os.Getenv(Require) == "1" && !Real() {
		return fmt.Errorf("%s=1 but there is no redis-server on PATH", Require)
	}
	return nil
}

// Server is a Redis server of one test.
type Server struct {
	Addr string // 127.0.0.1:port
	Dir  string // where it persists, if it does; miniredis and a Sentinel have none

	tb   testing.TB
	args []string
	mini *miniredis.Miniredis

	mu  sync.Mutex
	cmd *exec.Cmd
	end chan struct{}
	log *bytes.Buffer
}

// Start starts a server and stops it with the test. The arguments are those of
// redis-server; miniredis ignores them. By default nothing is persisted.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	if err := required(); err != nil {
		tb.Fatal(err)
	}
	if !Real() {
		return StartMini(tb)
	}
	dir := tb.TempDir()
	return start(tb, dir, append([]string{"--dir", dir, "--save", "", "--appendonly", "no"}, args...))
}

// StartSentinel starts a Sentinel that watches a primary under a name, alone: a
// quorum of one. Lines are added to its configuration. It needs a real redis-server.
func StartSentinel(tb testing.TB, name string, primary *Server, lines ...string) *Server {
	tb.Helper()
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		tb.Fatal(err)
	}
	config := filepath.Join(tb.TempDir(), "sentinel.conf") // for this Sentinel alone, which rewrites it
	text := fmt.Sprintf("sentinel monitor %s %s %s 1\n%s\n", name, host, port, strings.Join(lines, "\n"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return start(tb, "", []string{config, "--sentinel"})
}

// start starts the program on a free port and stops it with the test.
func start(tb testing.TB, dir string, args []string) *Server {
	tb.Helper()
	port := FreePort(tb)
	s := &Server{Addr: "127.0.0.1:" + port, Dir: dir, tb: tb, args: append(args, "--port", port, "--bind", "127.0.0.1")}
	s.Restart()
	tb.Cleanup(s.Kill)
	return s
}

// Ports that FreePort gives are below those that systems hand out by themselves
// (Linux: from 32768, gVisor: from 16000): nobody who listens on port 0 or connects takes one before
// its server listens, or while its server is restarted.
const (
	firstPort = 10_000
	ports     = 6_000
	bus       = 10_000 // from a port to that of a cluster's bus
	guard     = 20_000 // from a port to the one whose listener keeps it for its test
)

// nextPort counts, so that a process gives no port twice. It begins anywhere:
// other packages' tests run at the same time.
var nextPort, anywhere = new(atomic.Uint32), rand.Uint32N(ports)

// FreePort returns a port of the loopback interface that is free, together with the one
// 10,000 above it, which a cluster's bus would take. Until the test ends no other process
// is given the same one, whether or not anything listens there.
func FreePort(tb testing.TB) string {
	tb.Helper()
	listen := func(port uint32) (net.Listener, error) { return net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)) }
	free := func(port uint32) bool {
		l, err := listen(port)
		if err != nil {
			return false
		}
		_ = l.Close()
		return true
	}
	for range 1000 {
		port := firstPort + (anywhere+nextPort.Add(1))%ports
		keep, err := listen(port + guard)
		if err != nil {
			continue
		}
		if free(port) && free(port+bus) {
			tb.Cleanup(func() { _ = keep.Close() })
			return fmt.Sprint(port)
		}
		_ = keep.Close()
	}
	tb.Fatal("no free port")
	return ""
}

// Restart starts the server again after Kill, on the same address.
func (s *Server) Restart() {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = &bytes.Buffer{}
	s.cmd = exec.Command(program(), s.args...)
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
	if err := s.await(end); err != nil {
		s.tb.Fatalf("starting redis-server: %v\n%s", err, s.log)
	}
}

// await waits until the server takes connections.
func (s *Server) await(end chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", s.Addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-end:
			return errors.New("it ended")
		case <-ctx.Done():
			return err
		}
	}
}

// Kill ends the server at once, with kill -9, and waits for it. miniredis only
// closes its listener.
func (s *Server) Kill() {
	if s.mini != nil {
		s.mini.Close()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.cmd.Process.Kill()
	<-s.end
}

// Stop freezes the server (SIGSTOP).
func (s *Server) Stop() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue thaws it.
func (s *Server) Continue() error { return s.cmd.Process.Signal(syscall.SIGCONT) }
