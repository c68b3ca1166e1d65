package boltledger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"iter"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// putUndelivered stores the undelivered entry of a record, or removes the one that its id had.
func putUndelivered(tx *bbolt.Tx, rec *audit.Record, final audit.Outcome, text []byte) error {
	id := idKey(rec.ID)
	since, entries := tx.Bucket(sinceBucket), tx.Bucket(undeliveredBucket)
	if had := since.Get(id); had != nil {
		place := append(bytes.Clone(had[1:]), id...)
		err := errors.Join(listOf(tx, audit.Outcome(had[0])).Delete(place), since.Delete(id), entries.Delete(id))
		if err != nil {
			return err
		}
	}
	if text == nil || final != rec.Outcome {
		return nil
	}
	when := toKey(rec.Undelivered.Since.UnixMilli())
	return errors.Join(since.Put(id, append([]byte{byte(final)}, when...)),
		listOf(tx, final).Put(append(when, id...), nil), entries.Put(id, text))
}

// listOf returns the list of the dead letters or of the deferred entries.
func listOf(tx *bbolt.Tx, outcome audit.Outcome) *bbolt.Bucket {
	return tx.Bucket([]byte(outcome.String()))
}

// UndeliveredEntries is [redisledger.Ledger.UndeliveredEntries].
func (b *Ledger) UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error] {
	// A caller may record while it reads, so no transaction is open when it is called.
	return ledger.Undelivered(func(kind audit.Outcome, after string) (list []ledger.Stored, last string, err error) {
		err = b.view(ctx, "reading undelivered entries", func(tx *bbolt.Tx) error {
			entries, c := tx.Bucket(undeliveredBucket), listOf(tx, kind).Cursor()
			k, _ := c.Seek([]byte(after))
			if after != "" && string(k) == after {
				k, _ = c.Next()
			}
			for size := 0; k != nil && len(list) < ledger.UndeliveredAtOnce; k, _ = c.Next() {
				text := entries.Get(k[8:])
				if size += len(text); len(list) > 0 && size > ledger.UndeliveredBytesAtOnce {
					return nil
				}
				if last = string(k); text == nil {
					continue // it is gone
				}
				list = append(list, ledger.Stored{ID: string(k[9:]), Since: fromKey(k[:8]), Text: bytes.Clone(text)})
			}
			return nil
		})
		return list, last, err
	})
}

// UndeliveredEntry is [redisledger.Ledger.UndeliveredEntry].
func (b *Ledger) UndeliveredEntry(ctx context.Context, id string) (u audit.Undelivered, ok bool, err error) {
	var decodeErr error
	err = b.view(ctx, "reading undelivered entry", func(tx *bbolt.Tx) error {
		text := tx.Bucket(undeliveredBucket).Get(idKey(id))
		if text == nil {
			return nil
		}
		ok = true
		u, decodeErr = ledger.DecodeUndelivered(id, text)
		return nil
	})
	return u, ok, cmp.Or(err, decodeErr)
}

// UndeliveredCounts is [redisledger.Ledger.UndeliveredCounts].
func (b *Ledger) UndeliveredCounts(ctx context.Context) (c audit.UndeliveredCounts, err error) {
	err = b.view(ctx, "counting undelivered entries", func(tx *bbolt.Tx) error {
		deferred := tx.Bucket(deferredBucket)
		c.Dead, c.Deferred = tx.Bucket(deadBucket).Stats().KeyN, deferred.Stats().KeyN
		if k, _ := deferred.Cursor().First(); k != nil {
			c.OldestDeferred = time.UnixMilli(fromKey(k[:8]))
		}
		return nil
	})
	return c, err
}

// HasUndelivered is [redisledger.Ledger.HasUndelivered].
func (b *Ledger) HasUndelivered(ctx context.Context, ids []string) ([]bool, error) {
	has := make([]bool, len(ids))
	err := b.view(ctx, "looking for undelivered entries", func(tx *bbolt.Tx) error {
		stored := tx.Bucket(undeliveredBucket)
		for i, id := range ids {
			has[i] = stored.Get(idKey(id)) != nil
		}
		return nil
	})
	return has, err
}
