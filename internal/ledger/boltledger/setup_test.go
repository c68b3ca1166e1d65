package boltledger

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kong-cloudtrail/relay/internal/ledger/ledgertest"
)

const noon = ledgertest.Noon

func TestBolt(t *testing.T) {
	ledgertest.Conform(t, ledgertest.Backend{Open: func(tb testing.TB, lease time.Duration) (ledgertest.Ledger, ledgertest.Ledger, func()) {
		tb.Helper()
		b, err := Open(filepath.Join(tb.TempDir(), "ledger.db"), Options{LeaseTTL: lease})
		must(tb, err)
		tb.Cleanup(func() { b.Close() })
		return b, b, func() { empty(tb, b) }
	}, Forget: func(tb testing.TB, l ledgertest.Ledger, writes int) {
		must(tb, l.(*Ledger).db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket(metaBucket).Put(sequenceKey, toKey(number(tx, sequenceKey)-int64(writes)))
		}))
	}})
}

func empty(tb testing.TB, b *Ledger) {
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

// What the suite checks with.
var (
	must     = ledgertest.Must
	equal    = ledgertest.Equal
	outcomes = ledgertest.Outcomes
)

func value[T any](v T, err error) func(tb testing.TB) T { return ledgertest.Value(v, err) }

func bg() context.Context { return context.Background() }
