package boltledger

import (
	"context"
	"math"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// note is [redisledger.Ledger.note].
func (b *Ledger) note(ctx context.Context, doing string, name []byte, ids []string, at time.Time, life time.Duration) error {
	if len(ids) == 0 {
		return nil
	}
	return b.update(ctx, doing, func(tx *bbolt.Tx) error {
		bucket, oldest, when := tx.Bucket(name), b.oldest(life), toKey(at.UnixMilli())
		for _, id := range ids {
			key := idKey(id)
			if had := bucket.Get(key); had != nil && fromKey(had) >= oldest {
				continue
			}
			if err := bucket.Put(key, when); err != nil {
				return err
			}
		}
		list := listed(bucket, math.MinInt64)
		for i, a := range list {
			if a.At.UnixMilli() >= oldest && i >= len(list)-ledger.MaxListed {
				break
			}
			if err := bucket.Delete(idKey(a.ID)); err != nil {
				return err
			}
		}
		return nil
	})
}

// oldest returns the first Unix millisecond of what is kept for a time.
func (b *Ledger) oldest(life time.Duration) int64 { return b.now().Add(-life).UnixMilli() }

// listed returns a list from a Unix millisecond on, oldest first, and by id within one.
func listed(bucket *bbolt.Bucket, from int64) []audit.Announcement {
	var list []audit.Announcement
	c := bucket.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if at := fromKey(v); at >= from {
			list = append(list, audit.Announcement{ID: string(k[1:]), At: time.UnixMilli(at)})
		}
	}
	slices.SortStableFunc(list, func(a, b audit.Announcement) int { return a.At.Compare(b.At) })
	return list
}

// Announce is [redisledger.Ledger.Announce].
func (b *Ledger) Announce(ctx context.Context, ids []string, at time.Time) error {
	return b.note(ctx, "announcing", announcedBucket, ids, at, ledger.AnnouncedLife)
}

// Announced is [redisledger.Ledger.Announced].
func (b *Ledger) Announced(ctx context.Context) (list []audit.Announcement, err error) {
	err = b.view(ctx, "reading announcements", func(tx *bbolt.Tx) error {
		list = listed(tx.Bucket(announcedBucket), b.oldest(ledger.AnnouncedLife))
		return nil
	})
	return list, err
}

// Unannounce is [redisledger.Ledger.Unannounce].
func (b *Ledger) Unannounce(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return b.update(ctx, "taking back announcements", func(tx *bbolt.Tx) error {
		for _, id := range ids {
			if err := tx.Bucket(announcedBucket).Delete(idKey(id)); err != nil {
				return err
			}
		}
		return nil
	})
}

// NoteOwnReads is [redisledger.Ledger.NoteOwnReads].
func (b *Ledger) NoteOwnReads(ctx context.Context, ids []string) error {
	return b.note(ctx, "noting own reads", ownReadsBucket, ids, b.now(), ledger.OwnReadsLife)
}

// AreOwnReads is [redisledger.Ledger.AreOwnReads].
func (b *Ledger) AreOwnReads(ctx context.Context, ids []string) ([]bool, error) {
	own := make([]bool, len(ids))
	err := b.view(ctx, "looking up own reads", func(tx *bbolt.Tx) error {
		bucket, oldest := tx.Bucket(ownReadsBucket), b.oldest(ledger.OwnReadsLife)
		for i, id := range ids {
			at := bucket.Get(idKey(id))
			own[i] = at != nil && fromKey(at) >= oldest
		}
		return nil
	})
	return own, err
}
