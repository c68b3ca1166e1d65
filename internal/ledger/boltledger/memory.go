package boltledger

import (
	"bytes"
	"context"

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
		m := memory{Tx: tx}
		if !remembers(tx) {
			m.reset()
		}
		if number(tx, memoryVersionKey) != version {
			return audit.ErrMemoryChanged
		}
		m.items, m.expiry, m.count = tx.Bucket(itemsBucket), tx.Bucket(itemsExpiryBucket), number(tx, memoryCountKey)
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
		m.number(memoryCountKey, m.count)
		m.number(memoryVersionKey, version+1)
		return m.err
	})
	return dropped, err
}

// memory is what is remembered, within a transaction. The first error stays.
type memory struct {
	*bbolt.Tx

	items, expiry *bbolt.Bucket
	count         int64
	err           error
}

func (m *memory) try(err error) {
	if m.err == nil {
		m.err = err
	}
}

func (m *memory) number(key []byte, n int64) { m.try(m.Bucket(metaBucket).Put(key, toKey(n))) }

// reset forgets everything: another generation remembered it.
func (m *memory) reset() {
	for _, name := range [][]byte{itemsBucket, itemsExpiryBucket} {
		m.try(m.DeleteBucket(name))
		_, err := m.CreateBucketIfNotExists(name)
		m.try(err)
	}
	meta := m.Bucket(metaBucket)
	m.try(meta.Put(memoryGenerationKey, bytes.Clone(meta.Get(generationKey))))
	m.number(memoryVersionKey, 0)
	m.number(memoryCountKey, 0)
}

func (m *memory) put(item *audit.Item) {
	key := []byte(item.Key)
	m.remove(key)
	if len(item.Value) == 0 || m.err != nil {
		return
	}
	until := toKey(item.Until.Unix())
	m.try(m.items.Put(key, append(until, item.Value...)))
	m.try(m.expiry.Put(append(toKey(item.Until.Unix()), key...), []byte{}))
	m.count++
}

func (m *memory) remove(key []byte) {
	v := m.items.Get(key)
	if v == nil || m.err != nil {
		return
	}
	m.try(m.expiry.Delete(append(bytes.Clone(v[:8]), key...)))
	m.try(m.items.Delete(key))
	m.count--
}
