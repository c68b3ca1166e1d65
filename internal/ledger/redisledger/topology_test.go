package redisledger

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger/ledgertest"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

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
	ledgertest.Conform(t, redisBackend(Options{Addrs: list}))

	r := openRedis(t, Options{Addrs: list, DB: 3, Timeout: time.Second})
	value(r.Begin(bg()))(t)
	must(t, r.Record(bg(), []audit.Record{ledgertest.Record("a", noon, audit.Delivered)}))
	if n := value(plainClient(t, primary).DBSize(bg()).Result())(t); n == 0 {
		t.Error("nothing at the primary") // the suite has left something in database 0
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
	caughtUp := func() {
		t.Helper()
		eventually(t, func() error {
			if a, b := offset(first, "master_repl_offset"), offset(second, "slave_repl_offset"); a != b {
				return fmt.Errorf("offsets %d and %d", a, b)
			}
			return nil
		})
	}

	// Read-only: an error that heals.
	caughtUp()
	only := openRedis(t, Options{Addrs: []string{replica.Addr}, DB: 3})
	_, err := only.Begin(bg())
	must(t, err) // it only reads: the ledger is there
	var settings *audit.SettingsError
	err = only.Record(bg(), []audit.Record{ledgertest.Record("b", noon, audit.Delivered)})
	if err == nil || errors.As(err, &settings) || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("replica: %v", err)
	}

	caughtUp()
	primary.Kill()
	must(t, second.Do(bg(), "REPLICAOF", "NO", "ONE").Err())
	eventually(t, func() error { return r.Record(bg(), []audit.Record{ledgertest.Record("b", noon, audit.Delivered)}) })
	must(t, only.Record(bg(), []audit.Record{ledgertest.Record("c", noon, audit.Delivered)}))
	equal(t, outcomes(t, r, audit.Entry{ID: "a", Timestamp: noon}, audit.Entry{ID: "b", Timestamp: noon}, audit.Entry{ID: "c", Timestamp: noon}),
		[]audit.Outcome{audit.Delivered, audit.Delivered, audit.Delivered})
}

func TestRedisSentinel(t *testing.T) {
	if !haveServer(t) {
		return
	}
	primary := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, "main", primary)
	ledgertest.Conform(t, redisBackend(Options{Addrs: []string{sentinel.Addr}, SentinelMaster: "main"}))
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
		ledgertest.Conform(t, redisBackend(Options{Addrs: []string{nodes[1].Addr}, Cluster: true}))
	})
	t.Run("list", func(t *testing.T) {
		ledgertest.Conform(t, redisBackend(Options{Addrs: []string{nodes[0].Addr, nodes[1].Addr}}))
	})
	r := openRedis(t, Options{Addrs: []string{nodes[0].Addr}, Cluster: true})
	if warnings, err := r.Check(bg()); err != nil || len(warnings) != 0 {
		t.Errorf("check: %v, %v", warnings, err)
	}
	must(t, plainClient(t, nodes[2]).ConfigSet(bg(), "maxmemory-policy", "allkeys-lfu").Err())
	if _, err := r.Check(bg()); err == nil {
		t.Error("an evicting node was not refused")
	}
	moved := 0
	for _, n := range nodes {
		_, err := openRedis(t, Options{Addrs: []string{n.Addr}}).Begin(bg())
		var settings *audit.SettingsError
		if errors.As(err, &settings) && strings.Contains(audit.Hint(settings), "--redis-cluster") {
			moved++
		} else if err != nil {
			t.Errorf("without cluster mode: %v", err)
		}
	}
	if moved != 2 {
		t.Errorf("%d of 3 nodes sent elsewhere, want 2", moved)
	}
}
