package boltledger

import (
	"context"
	"time"

	"github.com/go-json-experiment/json"
	"go.etcd.io/bbolt"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// PutOutage is [redisledger.Ledger.PutOutage].
func (b *Ledger) PutOutage(ctx context.Context, o audit.Outage) error {
	const doing = "storing an outage"
	text, err := json.Marshal(o)
	if err != nil {
		return b.wrap(doing, err)
	}
	return b.update(ctx, doing, func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(outagesBucket)
		if err := bucket.Put(append(toKey(o.From.UnixMilli()), o.ID...), text); err != nil {
			return err
		}
		oldest, c := b.oldest(ledger.OutageLife), bucket.Cursor()
		more := -ledger.MaxOutages
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			more++
		}
		for k, _ := c.First(); k != nil && (more > 0 || fromKey(k[:8]) < oldest); k, _ = c.First() {
			if err := bucket.Delete(k); err != nil {
				return err
			}
			more--
		}
		return nil
	})
}

// Outages is [redisledger.Ledger.Outages].
func (b *Ledger) Outages(ctx context.Context, since time.Time) (list []audit.Outage, err error) {
	err = b.view(ctx, "reading outages", func(tx *bbolt.Tx) error {
		return tx.Bucket(outagesBucket).ForEach(func(k, text []byte) error {
			list = ledger.AppendOutage(list, string(k[8:]), fromKey(k[:8]), text, since)
			return nil
		})
	})
	return list, err
}
