package boltledger

import (
	"bytes"
	"context"
	"fmt"
	"sort"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// purgeEvery is how often what has expired is removed.
const purgeEvery = time.Hour

// purgeExpired removes days and nonces whose time is over, once in a while.
func (b *Ledger) purgeExpired(tx *bbolt.Tx) error {
	b.purge.Lock()
	defer b.purge.Unlock()
	now := b.now()
	if now.Before(b.purge.next) {
		return nil
	}
	if err := b.purgeNow(tx, now); err != nil {
		return err
	}
	b.purge.next = now.Add(purgeEvery)
	return nil
}

func (b *Ledger) purgeNow(tx *bbolt.Tx, now time.Time) error {
	expiry, days, nonces := tx.Bucket(expiryBucket), tx.Bucket(daysBucket), tx.Bucket(noncesBucket)
	for _, day := range expired(expiry, now.Unix()) {
		if err := days.DeleteBucket(day); err != nil {
			return err
		}
		if err := expiry.Delete(day); err != nil {
			return err
		}
	}
	for _, key := range expired(nonces, now.UnixMilli()) {
		if err := nonces.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// expired returns the keys whose value is a time that has come.
func expired(bucket *bbolt.Bucket, now int64) [][]byte {
	var keys [][]byte
	c := bucket.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if fromKey(v) <= now {
			keys = append(keys, bytes.Clone(k))
		}
	}
	return keys
}

// Lookup is [redisledger.Ledger.Lookup].
func (b *Ledger) Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error) {
	out := make([]audit.Outcome, len(entries))
	err := b.view(ctx, "looking up entries", func(tx *bbolt.Tx) error {
		if err := b.check(tx, false); err != nil {
			return err
		}
		days, expiry := tx.Bucket(daysBucket), tx.Bucket(expiryBucket)
		var day *bbolt.Bucket
		last, now := int64(0), b.now().Unix()
		for i := range entries {
			e := &entries[i]
			if number := ledger.DayOf(e.Timestamp); i == 0 || number != last {
				last, day = number, nil
				key := toKey(number)
				if until := expiry.Get(key); until != nil && fromKey(until) > now {
					day = days.Bucket(key)
				}
			}
			if day == nil {
				continue
			}
			if v := day.Get(idKey(e.ID)); len(v) == 1 {
				out[i] = audit.Outcome(v[0])
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// idKey is an id as a key, which may not be empty.
func idKey(id string) []byte { return []byte("i" + ledger.StoredID(id)) }

// Record is [redisledger.Ledger.Record], all or nothing.
func (b *Ledger) Record(ctx context.Context, records []audit.Record) error {
	undelivered := make([][]byte, len(records))
	order := make([]int, len(records))
	for i := range records {
		text, err := ledger.EncodeUndelivered(&records[i])
		if err != nil {
			return fmt.Errorf("recording %s: %w", records[i].ID, err)
		}
		undelivered[i], order[i] = text, i
	}
	// Sorted, so that a page of the file is touched once.
	sort.SliceStable(order, func(i, j int) bool {
		x, y := &records[order[i]], &records[order[j]]
		if dx, dy := ledger.DayOf(x.Timestamp), ledger.DayOf(y.Timestamp); dx != dy {
			return dx < dy
		}
		return x.ID < y.ID
	})
	return b.write(ctx, "recording outcomes", func(tx *bbolt.Tx, _ int64) error {
		if err := b.purgeExpired(tx); err != nil {
			return err
		}
		final := make(map[int]audit.Outcome, len(records))
		if err := b.putOutcomes(tx, records, order, final); err != nil {
			return err
		}
		for i := range records {
			if err := putUndelivered(tx, &records[i], final[i], undelivered[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// putOutcomes writes outcomes, and notes in final what each record's id has after its own write.
func (b *Ledger) putOutcomes(tx *bbolt.Tx, records []audit.Record, order []int, final map[int]audit.Outcome) error {
	days, expiry, now := tx.Bucket(daysBucket), tx.Bucket(expiryBucket), b.now()
	var (
		day   *bbolt.Bucket
		key   []byte
		until int64
	)
	for n, i := range order {
		rec := &records[i]
		if number := ledger.DayOf(rec.Timestamp); n == 0 || number != ledger.DayOf(records[order[n-1]].Timestamp) {
			key, until = toKey(number), 0
			if v := expiry.Get(key); v != nil {
				until = fromKey(v)
				if until <= now.Unix() { // expired, and not purged yet
					if err := days.DeleteBucket(key); err != nil {
						return err
					}
					until = 0
				}
			}
			var err error
			if day, err = days.CreateBucketIfNotExists(key); err != nil {
				return err
			}
		}
		if end := now.Unix() + int64(ledger.Life(rec.Retention)/time.Second) + 1; end > until {
			until = end
			if err := expiry.Put(key, toKey(until)); err != nil {
				return err
			}
		}
		id := idKey(rec.ID)
		final[i] = rec.Outcome
		if v := day.Get(id); len(v) == 1 && audit.Outcome(v[0]) == audit.Delivered {
			final[i] = audit.Delivered
			continue
		}
		if err := day.Put(id, []byte{byte(rec.Outcome)}); err != nil {
			return err
		}
	}
	return nil
}
