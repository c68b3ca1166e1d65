package redisledger

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/ledger/ledgertest"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

func TestMain(m *testing.M) {
	if err := redistest.Announce("ledger"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	redisconn.LogTo(slog.New(slog.DiscardHandler))
	// Most of a test is waiting for a server. A -parallel on the command line takes precedence.
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// haveServer says whether there is a redis-server for a test of what miniredis cannot do.
func haveServer(tb testing.TB) bool {
	tb.Helper()
	if !redistest.Real() {
		tb.Logf("no redis-server on PATH: only %s=1 makes that a failure", redistest.Require)
	}
	return redistest.Real()
}

// plainClient returns a client of a server that has nothing to do with the ledger.
func plainClient(tb testing.TB, s *redistest.Server) *redis.Client {
	tb.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Addr, Protocol: 2, DisableIdentity: true})
	tb.Cleanup(func() { c.Close() })
	return c
}

func openRedis(tb testing.TB, server redisconn.Options) *Ledger {
	tb.Helper()
	return openNamed(tb, server, Options{Source: "kong", Destination: "arn:aws:cloudtrail:eu-west-1:123456789012:channel/0d4e4d2a-1c3e-4f6b-9f7e-0a1b2c3d4e5f"})
}

// openNamed opens a ledger. What is not given has the values of a busy machine: nothing but
// a hang takes as long as its timeout, and no lease runs out.
func openNamed(tb testing.TB, server redisconn.Options, o Options) *Ledger {
	tb.Helper()
	server.Timeout = cmp.Or(server.Timeout, 20*time.Second)
	o.LeaseTTL = cmp.Or(o.LeaseTTL, time.Hour)
	r := Open(server, o)
	tb.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
			tb.Error(err)
		}
	})
	return r
}

// login returns credentials that do not change.
func login(username, password string) redisconn.Credentials {
	return func(context.Context, bool) (string, string, error) { return username, password, nil }
}

// ledgerKeys returns the keys of a ledger, on whatever server they are.
func ledgerKeys(tb testing.TB, r *Ledger) []string {
	tb.Helper()
	var client redis.Cmdable = r.client
	if cluster, ok := r.client.UniversalClient.(*redis.ClusterClient); ok {
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

func emptyRedis(tb testing.TB, r *Ledger) {
	tb.Helper()
	for _, key := range ledgerKeys(tb, r) {
		if err := r.client.Del(bg(), key).Err(); err != nil {
			tb.Fatal(err)
		}
	}
}

const noon = ledgertest.Noon

var opened atomic.Int64 // ledgers, which have different names

// redisBackend makes ledgers in a server.
func redisBackend(server redisconn.Options) ledgertest.Backend {
	return ledgertest.Backend{Open: func(tb testing.TB, lease time.Duration) (ledgertest.Ledger, ledgertest.Ledger, func()) {
		tb.Helper()
		o := Options{Source: fmt.Sprint("kong", opened.Add(1)), Destination: "arn:aws:test", LeaseTTL: lease}
		a, b := openNamed(tb, server, o), openNamed(tb, server, o)
		return a, b, func() { emptyRedis(tb, a) }
	}, Forget: func(tb testing.TB, l ledgertest.Ledger, writes int) {
		r := l.(*Ledger)
		must(tb, r.client.DecrBy(bg(), r.prefix+"seq", int64(writes)).Err())
	}}
}

// What the suite checks with.
var (
	must       = ledgertest.Must
	wantErr    = ledgertest.WantErr
	equal      = ledgertest.Equal
	outcomes   = ledgertest.Outcomes
	eventually = ledgertest.Eventually
)

func value[T any](v T, err error) func(tb testing.TB) T { return ledgertest.Value(v, err) }

func bg() context.Context { return context.Background() }
