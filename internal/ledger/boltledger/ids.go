package boltledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// purgeEvery is how often what has expired is removed.
const purgeEvery = time.Hour

// purgeExpired removes days and nonces whose time is over, once in a while.
func (b *Ledger) purgeExpired(tx *bbolt.Tx) error {
	now := b.now()
	if now.Before(b.purgeNext) {
		return nil
	}
	expiry, days, nonces := tx.Bucket(expiryBucket), tx.Bucket(daysBucket), tx.Bucket(noncesBucket)
	for _, day := range expired(expiry, now.Unix()) {
		if err := errors.Join(days.DeleteBucket(day), expiry.Delete(day)); err != nil {
			return err
		}
	}
	for _, nonce := range expired(nonces, now.UnixMilli()) {
		if err := nonces.Delete(nonce); err != nil {
			return err
		}
	}
	b.purgeNext = now.Add(purgeEvery)
	return nil
}

// expired returns the keys whose value is a time that has come.
func expired(bucket *bbolt.Bucket, now int64) [][]byte {
	var keys [][]byte
	c := bucket.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if !lasts(v, now) {
			keys = append(keys, bytes.Clone(k))
		}
	}
	return keys
}

// lasts reports whether a time is still to come. One that is broken is: the ids of its day must not
// be forgotten. The next record of the day mends it.
func lasts(until []byte, now int64) bool { return len(until) != 8 || fromKey(until) > now }

// Lookup is [redisledger.Ledger.Lookup].
func (b *Ledger) Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error) {
	out := make([]audit.Outcome, len(entries))
	err := b.view(ctx, "looking up entries", func(tx *bbolt.Tx) error {
		if err := b.check(tx); err != nil {
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
				if until := expiry.Get(key); until != nil && lasts(until, now) {
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
	return out, err
}

// idKey is an id as a key, which may not be empty.
func idKey(id string) []byte { return []byte("i" + ledger.StoredID(id)) }

// Record is [redisledger.Ledger.Record], all or nothing.
func (b *Ledger) Record(ctx context.Context, records []audit.Record) error {
	undelivered := make([][]byte, len(records))
	for i := range records {
		var err error
		if undelivered[i], err = ledger.EncodeUndelivered(&records[i]); err != nil {
			return fmt.Errorf("recording %s: %w", records[i].ID, err)
		}
	}
	return b.write(ctx, "recording outcomes", func(tx *bbolt.Tx, _ int64) error {
		if err := b.purgeExpired(tx); err != nil {
			return err
		}
		for i := range records {
			final, err := b.putOutcome(tx, &records[i])
			if err == nil {
				err = putUndelivered(tx, &records[i], final, undelivered[i])
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// putOutcome writes an outcome, and returns the one that the id has from then on.
func (b *Ledger) putOutcome(tx *bbolt.Tx, rec *audit.Record) (final audit.Outcome, err error) {
	days, expiry, now := tx.Bucket(daysBucket), tx.Bucket(expiryBucket), b.now().Unix()
	key, until := toKey(ledger.DayOf(rec.Timestamp)), int64(0)
	if v := expiry.Get(key); v != nil {
		if until = fromKey(v); !lasts(v, now) { // expired, and not purged yet
			if err := days.DeleteBucket(key); err != nil {
				return 0, err
			}
		}
	}
	day, err := days.CreateBucketIfNotExists(key)
	if err != nil {
		return 0, err
	}
	if end := now + int64(ledger.Life(rec.Retention)/time.Second) + 1; end > until {
		if err := expiry.Put(key, toKey(end)); err != nil {
			return 0, err
		}
	}
	id := idKey(rec.ID)
	if v := day.Get(id); len(v) == 1 && audit.Outcome(v[0]) == audit.Delivered {
		return audit.Delivered, nil
	}
	return rec.Outcome, day.Put(id, []byte{byte(rec.Outcome)})
}
