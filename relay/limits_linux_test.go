package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// TestTooManyConnections opens more connections to both listeners than the relay has
// descriptors: triggers and health checks are answered all the same, and so is Kong read.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	binary, err := relayBinary()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	triggers, ops := "127.0.0.1:"+redistest.FreePort(t), "127.0.0.1:"+redistest.FreePort(t)
	cmd := exec.Command("sh", "-c", "ulimit -n 1024; exec "+binary+" serve")
	cmd.Env = append(append([]string{}, w.env...), "RELAY_LISTEN="+triggers, "RELAY_OPS_LISTEN="+ops)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(tail(said.String(), 2000))
		}
	})
	eventually(t, patient, "relay serve listens", func() bool {
		c, err := net.Dial("tcp", triggers)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	for range 1200 {
		for _, address := range []string{triggers, ops} {
			c, err := net.DialTimeout("tcp", address, patient)
			if err != nil {
				t.Fatalf("a connection was not taken: %v", err)
			}
			t.Cleanup(func() { c.Close() })
		}
	}
	client := http.Client{Timeout: patient}
	resp, err := client.Get("http://" + ops + "/healthz")
	if err != nil {
		t.Fatalf("healthz: %v", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("healthz answers %d", resp.StatusCode)
	}
	id := adminRequest(t, w)
	notifyOnce(t, "http://"+triggers, id)
	eventually(t, patient, "the event", func() bool { return w.trail.Times(id) > 0 })
}

// smallDisk returns a folder with little room: a file system of 64 KiB where the tests
// may mount one, and else a limit of the file's size, which the shell that runs the relay sets.
func smallDisk(t *testing.T) (dir, limit string, full error) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err == nil {
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		return dir, "", syscall.ENOSPC
	}
	return dir, "ulimit -f 64; ", syscall.EFBIG // in blocks of 512 or 1024 bytes
}

// TestReallyFullDisk fills a disk with events: the reason is named, what was not written
// is not recorded, no line stays half, and all of it is there once there is room.
func TestReallyFullDisk(t *testing.T) {
	t.Parallel()
	binary, err := relayBinary()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	const n = 400
	w.kong.Add(rows("d", n, func(i int) time.Time { return time.Now().Add(-time.Hour) })...)
	dir, limit, full := smallDisk(t)
	path := filepath.Join(dir, "audit.jsonl")
	once := func(limit string) (said string, code int) {
		t.Helper()
		cmd := exec.Command("sh", "-c", limit+"exec "+binary+" once")
		cmd.Env = append(append([]string{}, w.env...), "RELAY_DESTINATION=jsonl:"+path, "RELAY_RETRY_FOR=1s")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	events := func() (ids map[string]int, torn int) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		ids = map[string]int{}
		for line := range strings.Lines(string(text)) {
			_, id, ok := strings.Cut(line, `"UID":"`)
			if !ok || !strings.HasSuffix(line, "}\n") {
				torn++
				continue
			}
			ids[id[:strings.IndexByte(id, '"')]]++
		}
		return ids, torn
	}
	said, code := once(limit)
	if code != exitFailed || !strings.Contains(said, full.Error()) || !strings.Contains(said, "What to do: ") {
		t.Errorf("ended with %d: %s", code, tail(said, 2000))
	}
	before, _ := events()
	if len(before) == n {
		t.Fatal("the disk was not full")
	}
	if limit == "" { // more room
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=16m"); err != nil {
			t.Fatal(err)
		}
	}
	if said, code := once(""); code != exitOK {
		t.Errorf("with room again it ended with %d: %s", code, tail(said, 2000))
	}
	after, torn := events()
	if len(after) != n || torn != 0 {
		t.Errorf("%d of %d events, %d lines torn", len(after), n, torn)
	}
	for id, times := range after {
		if times != 1 {
			t.Errorf("%s is there %d times", id, times)
		}
	}
}

// TestLedgerOnAFullDisk fills the disk of a ledger in a file: the pass does not wait for
// room, says what to do, and at most what was in flight is repeated once there is room.
func TestLedgerOnAFullDisk(t *testing.T) {
	t.Parallel()
	binary, err := relayBinary()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.Add(rows("d", 3000, func(i int) time.Time { return time.Now().Add(-time.Hour) })...)
	dir, limit, full := smallDisk(t)
	w.env = append(w.env, "RELAY_LEDGER=bolt:"+filepath.Join(dir, "ledger.db"))
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", limit+"exec "+binary+" once")
	cmd.Env = w.env
	said, _ := cmd.CombinedOutput() // its exit code says more
	for _, want := range []string{full.Error(), "What to do: make room"} {
		if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(string(said), want) {
			t.Errorf("ended with %d, want %q: %s", code, want, tail(string(said), 2000))
		}
	}
}
