package redisledger

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger/ledgertest"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// TestRedisList has a primary and a replica, of which nobody says which is which.
func TestRedisList(t *testing.T) {
	t.Parallel()
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
	ledgertest.Conform(t, redisBackend(redisconn.Options{Addrs: list}))

	r := openRedis(t, redisconn.Options{Addrs: list, DB: 3})
	must(t, r.Begin(bg()))
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
	only := openRedis(t, redisconn.Options{Addrs: []string{replica.Addr}, DB: 3})
	err := only.Begin(bg())
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
	t.Parallel()
	if !haveServer(t) {
		return
	}
	primary := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, "main", primary)
	ledgertest.Conform(t, redisBackend(redisconn.Options{Addrs: []string{sentinel.Addr}, SentinelMaster: "main"}))
}

// TestRedisCluster has three primaries. Every ledger is in one slot, and the
// suite's ledgers are spread over all of them.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	nodes := startCluster(t, 3)
	t.Run("one address", func(t *testing.T) {
		ledgertest.Conform(t, redisBackend(redisconn.Options{Addrs: []string{nodes[1].Addr}, Cluster: true}))
	})
	t.Run("list", func(t *testing.T) {
		ledgertest.Conform(t, redisBackend(redisconn.Options{Addrs: []string{nodes[0].Addr, nodes[1].Addr}}))
	})
	r := openRedis(t, redisconn.Options{Addrs: []string{nodes[0].Addr}, Cluster: true})
	if warnings, err := r.Check(bg()); err != nil || len(warnings) != 0 {
		t.Errorf("check: %v, %v", warnings, err)
	}
	must(t, plainClient(t, nodes[2]).ConfigSet(bg(), "maxmemory-policy", "allkeys-lfu").Err())
	if _, err := r.Check(bg()); err == nil {
		t.Error("an evicting node was not refused")
	}
	moved := 0
	for _, n := range nodes {
		err := openRedis(t, redisconn.Options{Addrs: []string{n.Addr}}).Begin(bg())
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

// startCluster starts n primaries, which share the slots.
func startCluster(t *testing.T, n int) []*redistest.Server {
	t.Helper()
	var nodes []*redistest.Server
	for i := range n {
		s := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "60000")
		must(t, plainClient(t, s).Do(bg(), "CLUSTER", "ADDSLOTSRANGE", i*16384/n, (i+1)*16384/n-1).Err())
		must(t, plainClient(t, s).Do(bg(), "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
		nodes = append(nodes, s)
	}
	for _, s := range nodes[1:] {
		host, port, _ := net.SplitHostPort(nodes[0].Addr)
		must(t, plainClient(t, s).Do(bg(), "CLUSTER", "MEET", host, port).Err())
	}
	for _, s := range nodes {
		c := plainClient(t, s)
		eventually(t, func() error {
			info, err := c.ClusterInfo(bg()).Result()
			if err == nil && (!strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:"+strconv.Itoa(n))) {
				err = errors.New("cluster is not ready")
			}
			return err
		})
	}
	return nodes
}

// TestRedisReshards moves the ledger's slot to another node, key by key, while the
// ledger is in use: it forgets nothing meanwhile, and no key is left behind or made
// anew at the wrong node.
func TestRedisReshards(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	nodes := startCluster(t, 2)
	r := openNamed(t, redisconn.Options{Addrs: []string{nodes[0].Addr, nodes[1].Addr}}, Options{})
	must(t, r.Begin(bg()))
	const known = 2000 // enough to split buckets
	var entries []audit.Entry
	var records []audit.Record
	for i := range known {
		records = append(records, ledgertest.Record(ledgertest.ID(i), noon, audit.Delivered))
		entries = append(entries, audit.Entry{ID: ledgertest.ID(i), Timestamp: noon})
	}
	must(t, r.Record(bg(), records))
	lease := value(r.Acquire(bg(), true))(t)
	must(t, lease.SetMarks(bg(), audit.Marks{Cursor: noon}))

	clients := []*redis.Client{plainClient(t, nodes[0]), plainClient(t, nodes[1])}
	slot := int(value(clients[0].ClusterKeySlot(bg(), r.prefix+"gen").Result())(t))
	from, to := clients[slot*2/16384], clients[1-slot*2/16384]
	host, port, _ := net.SplitHostPort(nodes[1-slot*2/16384].Addr)
	must(t, to.Do(bg(), "CLUSTER", "SETSLOT", slot, "IMPORTING", value(from.Do(bg(), "CLUSTER", "MYID").Text())(t)).Err())
	must(t, from.Do(bg(), "CLUSTER", "SETSLOT", slot, "MIGRATING", value(to.Do(bg(), "CLUSTER", "MYID").Text())(t)).Err())

	// use reports whether the ledger answered. One that is being moved may not, but it never answers wrongly.
	used := known
	use := func() bool {
		t.Helper()
		got, err := r.Lookup(bg(), entries)
		for i := range got {
			if got[i] != audit.Delivered {
				t.Fatalf("%s is forgotten", entries[i].ID)
			}
		}
		one := audit.Entry{ID: ledgertest.ID(used), Timestamp: noon}
		if err == nil {
			if err = r.Record(bg(), []audit.Record{ledgertest.Record(one.ID, noon, audit.Delivered)}); err == nil {
				used++
				entries = append(entries, one)
			}
		}
		if err != nil && (audit.NeedsPerson(err) || audit.LedgerForgot(err)) {
			t.Fatalf("while it moves: %v", err)
		}
		return err == nil
	}
	answered := use()
	keys := value(from.ClusterGetKeysInSlot(bg(), slot, 10_000).Result())(t)
	for i, key := range keys {
		must(t, from.Do(bg(), "MIGRATE", host, port, key, 0, 60_000).Err()) // BUSYKEY: it was made anew at the other node
		if i%(len(keys)/4+1) == 0 {
			answered = use() || answered
		}
	}
	must(t, to.Do(bg(), "CLUSTER", "SETSLOT", slot, "NODE", value(to.Do(bg(), "CLUSTER", "MYID").Text())(t)).Err())
	must(t, from.Do(bg(), "CLUSTER", "SETSLOT", slot, "NODE", value(to.Do(bg(), "CLUSTER", "MYID").Text())(t)).Err())
	if left := value(from.ClusterGetKeysInSlot(bg(), slot, 10).Result())(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	eventually(t, func() error {
		if !use() {
			return errors.New("no answer after the move")
		}
		return nil
	})
	value(lease.Renew(bg()))(t)
	equal(t, value(r.Marks(bg()))(t), audit.Marks{Cursor: noon})
	t.Logf("%d keys moved, %d entries recorded meanwhile, answered during the move: %v", len(keys), used-known, answered)
}
