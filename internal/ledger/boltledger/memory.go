package boltledger

import (
	"bytes"
	"context"
	"errors"

	"go.etcd.io/bbolt"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

var (
	memoryGenerationKey = []byte("memory_generation")
	memoryVersionKey    = []byte("memory_version")
	memoryCountKey      = []byte("memory_count")
)

// Recall is [redisledger.Ledger.Recall].
func (b *Ledger) Recall(ctx context.Context, keys []string) (values [][]byte, version int64, err error) {
	values = make([][]byte, len(keys))
	err = b.view(ctx, "recalling", func(tx *bbolt.Tx) error {
		if err := b.check(tx); err != nil || !remembers(tx) {
			return err
		}
		version = number(tx, memoryVersionKey)
		items, now := tx.Bucket(itemsBucket), b.now().Unix()
		for i, key := range keys {
			if v := items.Get([]byte(key)); len(v) > 8 && fromKey(v[:8]) > now {
				values[i] = bytes.Clone(v[8:])
			}
		}
		return nil
	})
	return values, version, err
}

// remembers reports whether what is remembered belongs to the ledger's generation.
func remembers(tx *bbolt.Tx) bool {
	meta := tx.Bucket(metaBucket)
	return bytes.Equal(meta.Get(memoryGenerationKey), meta.Get(generationKey))
}

// Remember is [redisledger.Ledger.Remember].
func (b *Ledger) Remember(ctx context.Context, version int64, items []audit.Item, most int) (dropped int, err error) {
	err = b.update(ctx, "remembering", func(tx *bbolt.Tx) error {
		dropped = 0
		if !b.pin.Begun() {
			return ledger.ErrNotBegun
		}
		if err := b.check(tx); err != nil {
			return err
		}
		m, err := openMemory(tx)
		if err != nil {
			return err
		}
		if number(tx, memoryVersionKey) != version {
			return audit.ErrMemoryChanged
		}
		for i := range items {
			m.put(&items[i])
		}
		now := b.now().Unix()
		for c := m.expiry.Cursor(); m.err == nil; {
			k, _ := c.First()
			if k == nil || fromKey(k[:8]) > now && m.count <= int64(most) {
				break
			}
			if fromKey(k[:8]) > now {
				dropped++
			}
			m.remove(bytes.Clone(k[8:]))
		}
		meta := tx.Bucket(metaBucket)
		return errors.Join(m.err, meta.Put(memoryCountKey, toKey(m.count)), meta.Put(memoryVersionKey, toKey(version+1)))
	})
	return dropped, err
}

// memory is what is remembered, within a transaction that writes.
type memory struct {
	items, expiry *bbolt.Bucket
	count         int64
	err           error // that a write failed with
}

// openMemory returns what is remembered, which is nothing if another generation did.
func openMemory(tx *bbolt.Tx) (*memory, error) {
	if !remembers(tx) {
		meta := tx.Bucket(metaBucket)
		err := errors.Join(tx.DeleteBucket(itemsBucket), tx.DeleteBucket(itemsExpiryBucket),
			meta.Put(memoryGenerationKey, bytes.Clone(meta.Get(generationKey))), meta.Put(memoryVersionKey, toKey(0)), meta.Put(memoryCountKey, toKey(0)))
		if err != nil {
			return nil, err
		}
	}
	items, err := tx.CreateBucketIfNotExists(itemsBucket)
	if err != nil {
		return nil, err
	}
	expiry, err := tx.CreateBucketIfNotExists(itemsExpiryBucket)
	return &memory{items: items, expiry: expiry, count: number(tx, memoryCountKey)}, err
}

func (m *memory) put(item *audit.Item) {
	key, until := []byte(item.Key), item.Until.Unix()
	m.remove(key)
	if len(item.Value) > 0 {
		m.err = errors.Join(m.err, m.items.Put(key, append(toKey(until), item.Value...)), m.expiry.Put(append(toKey(until), key...), nil))
		m.count++
	}
}

func (m *memory) remove(key []byte) {
	if v := m.items.Get(key); v != nil {
		m.err = errors.Join(m.err, m.expiry.Delete(append(bytes.Clone(v[:8]), key...)), m.items.Delete(key))
		m.count--
	}
}
