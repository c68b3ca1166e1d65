package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.etcd.io/bbolt"

	"github.com/kong-cloudtrail/relay/internal/redistest"
)

func TestMain(m *testing.M) {
	if err := redistest.Announce("ledger"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	LogTo(slog.New(slog.DiscardHandler))
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
