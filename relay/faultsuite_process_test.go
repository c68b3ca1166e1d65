package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// processFaults end relays.
func processFaults() []faultCase {
	return []faultCase{
		{name: "kill -9", entries: 2500, anyWay: true, play: func(f *faultRun) {
			for range f.ends() {
				r := f.up()
				f.await(f.some(4))
				f.kill(r)
				f.check("killed")
			}
			f.up()
		}},
		{name: "kill -9 of once", entries: 2500, anyWay: true, play: func(f *faultRun) {
			for range f.ends() {
				r := &faultRelay{relayRun: f.start(nil, "once", "--json")}
				f.await(f.some(4))
				f.kill(r)
				f.check("killed")
			}
			f.up()
		}},
		{name: "SIGTERM", entries: 2500, anyWay: true, play: func(f *faultRun) {
			for range 2 * f.ends() {
				r := f.up()
				f.await(f.some(6))
				f.term(r)
				f.check("stopped")
			}
			f.up()
		}},
		{name: "SIGTERM with the ledger down", entries: 2000, real: true, play: func(f *faultRun) {
			r := f.up()
			f.await(f.some(3))
			if err := f.redis.Stop(); err != nil {
				f.t.Fatal(err)
			}
			f.signal(r, syscall.SIGTERM)
			r.wait(f.t) // with any code, but in time
			f.gone(r)
			f.allowed += f.inFlight() // nobody took down what was accepted
			if err := f.redis.Continue(); err != nil {
				f.t.Fatal(err)
			}
			f.check("stopped")
			f.up()
		}},
	}
}

// ends is how often a run ends a process.
func (f *faultRun) ends() int {
	if *faultsLong {
		return 3
	}
	return 1
}

// redisFaults befall the ledger. Each is put upon a relay in the middle of its work.
func redisFaults() []faultCase {
	durable := []string{"--appendonly", "yes", "--appendfsync", "always"}
	return []faultCase{
		{name: "Redis restarted empty", entries: 2000, anyWay: true, real: true, play: func(f *faultRun) {
			f.up()
			f.await(f.some(2))
			f.redis.Kill()
			f.check("killed")
			f.allowed += len(f.rows) // what it forgot
			f.redis.Restart()
			f.check("empty")
		}},
		{name: "Redis emptied by a command", entries: 2000, anyWay: true, real: true, play: func(f *faultRun) {
			f.up()
			f.await(f.some(2))
			f.allowed += len(f.rows)
			redisDo(f.t, f.redis.Addr, "FLUSHALL")
			f.check("empty")
		}},
		{name: "Redis restarted with its data", entries: 2000, redis: durable, real: true, play: func(f *faultRun) {
			f.up()
			for range 2 {
				f.await(f.some(4))
				f.redis.Kill()
				f.check("killed")
				f.pause(500 * time.Millisecond)
				f.redis.Restart()
				f.check("restarted")
			}
		}},
		{name: "Redis restarted from an older snapshot", entries: 2000, real: true, play: func(f *faultRun) {
			f.up()
			f.await(f.some(4))
			redisDo(f.t, f.redis.Addr, "SAVE")
			f.await(f.some(2))
			f.allowed += len(f.rows)
			f.redis.Kill()
			f.redis.Restart()
			f.check("restarted")
		}},
		{name: "Redis paused", entries: 2000, real: true, play: func(f *faultRun) {
			f.up()
			f.await(f.some(2))
			f.freezeRedis(time.Duration(1+f.random.IntN(3000)) * time.Millisecond)
			f.await(f.some(4))
		}},
		{name: "Redis paused beyond the lease", entries: 2000, real: true, play: func(f *faultRun) {
			f.up()
			f.await(f.some(2))
			f.freezeRedis(12 * time.Second)
		}},
		{name: "Redis failed over", entries: 2000, redis: durable, real: true, play: func(f *faultRun) {
			replica := redistest.Start(f.t)
			f.env = append(f.env, "REDIS_HOST="+f.redis.Addr+","+replica.Addr)
			f.openLedger(f.redis.Addr, replica.Addr)
			host, port, _ := strings.Cut(f.redis.Addr, ":")
			redisDo(f.t, replica.Addr, "REPLICAOF", host, port)
			f.eventually(patient, "the replica is in step", func() bool {
				return strings.Contains(redisDo(f.t, replica.Addr, "INFO", "replication"), "master_link_status:up")
			})
			f.up()
			f.await(f.some(2))
			f.redis.Kill()
			f.check("primary killed")
			f.eventually(patient, "the replica has taken all that reached it", func() bool {
				return strings.Contains(redisDo(f.t, replica.Addr, "INFO", "replication"), "master_link_status:down")
			})
			// What has not reached the replica, and what is in flight, is put again.
			f.allowed += f.dest.Counts().Distinct - f.recorded(replica.Addr) + f.inFlight()
			redisDo(f.t, replica.Addr, "REPLICAOF", "NO", "ONE")
			f.check("promoted")
		}},
		{name: "Redis full", entries: 2000, real: true, play: func(f *faultRun) {
			f.up()
			f.await(f.some(2))
			redisDo(f.t, f.redis.Addr, "CONFIG", "SET", "maxmemory", "1")
			f.check("full")
			f.pause(time.Duration(500+f.random.IntN(3000)) * time.Millisecond)
			f.check("still full")
			redisDo(f.t, f.redis.Addr, "CONFIG", "SET", "maxmemory", "0")
		}},
		{name: "Redis read-only", entries: 2000, real: true, play: func(f *faultRun) {
			f.up()
			f.await(f.some(2))
			redisDo(f.t, f.redis.Addr, "REPLICAOF", "127.0.0.1", "1") // of nobody
			f.check("read-only")
			f.pause(time.Duration(500+f.random.IntN(3000)) * time.Millisecond)
			redisDo(f.t, f.redis.Addr, "REPLICAOF", "NO", "ONE")
		}},
	}
}

// recorded returns how many entries a server has on record.
func (f *faultRun) recorded(addr string) (n int) {
	f.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer client.Close()
	keys, err := client.Keys(f.t.Context(), "relay:{*}:*:*").Result()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, key := range keys {
		if client.Type(f.t.Context(), key).Val() != "hash" {
			continue
		}
		ids, err := client.HKeys(f.t.Context(), key).Result()
		if err != nil {
			f.t.Fatal(err)
		}
		for _, id := range ids {
			if _, known := f.rows[id]; known {
				n++
			}
		}
	}
	return n
}

// freezeRedis stops the server for a while.
func (f *faultRun) freezeRedis(d time.Duration) {
	f.t.Helper()
	if err := f.redis.Stop(); err != nil {
		f.t.Fatal(err)
	}
	f.pause(d)
	if err := f.redis.Continue(); err != nil {
		f.t.Fatal(err)
	}
	f.check("thawed")
}

// pause lets a fault last for a while: its length is what the case is about.
func (f *faultRun) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-f.t.Context().Done():
	}
}

// redisDo sends a command to a server and returns its answer.
func redisDo(tb testing.TB, addr string, args ...string) string {
	tb.Helper()
	c, err := net.DialTimeout("tcp", addr, patient)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patient)); err != nil {
		tb.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		tb.Fatal(err)
	}
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	if err != nil || strings.HasPrefix(line, "-") {
		tb.Fatalf("redis %s: %q, %v", args[0], line, err)
	}
	if n, ok := strings.CutPrefix(strings.TrimSpace(line), "$"); ok {
		length, err := strconv.Atoi(n)
		if err != nil {
			tb.Fatal(err)
		}
		body := make([]byte, max(length, 0))
		if _, err := io.ReadFull(in, body); err != nil {
			tb.Fatal(err)
		}
		return string(body)
	}
	return strings.TrimSpace(line)
}
