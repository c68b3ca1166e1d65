package boltledger

import (
	"context"
	"sort"
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
		bucket := tx.Bucket(name)
		list, oldest, drop := listed(bucket), b.oldest(life), 0
		for drop < len(list) && list[drop].At.Before(oldest) {
			drop++
		}
		if err := unlist(bucket, list[:drop]); err != nil {
			return err
		}
		when := toKey(at.UnixMilli())
		for _, id := range ids {
			key := idKey(id)
			if bucket.Get(key) != nil {
				continue
			}
			if err := bucket.Put(key, when); err != nil {
				return err
			}
		}
		list = listed(bucket)
		return unlist(bucket, list[:max(0, len(list)-ledger.MaxListed)])
	})
}

// oldest returns the first millisecond that a list of a given life still holds.
func (b *Ledger) oldest(life time.Duration) time.Time {
	return b.now().Add(-life).Truncate(time.Millisecond)
}

// listed returns a list, oldest first, and by id within a millisecond.
func listed(bucket *bbolt.Bucket) []audit.Announcement {
	var list []audit.Announcement
	c := bucket.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		list = append(list, audit.Announcement{ID: string(k[1:]), At: time.UnixMilli(fromKey(v))})
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].At.Before(list[j].At) })
	return list
}

// unlist removes what listed returned.
func unlist(bucket *bbolt.Bucket, list []audit.Announcement) error {
	for _, a := range list {
		if err := bucket.Delete([]byte("i" + a.ID)); err != nil {
			return err
		}
	}
	return nil
}

// Announce is [redisledger.Ledger.Announce].
func (b *Ledger) Announce(ctx context.Context, ids []string, at time.Time) error {
	return b.note(ctx, "announcing", announcedBucket, ids, at, ledger.AnnouncedLife)
}

// Announced is [redisledger.Ledger.Announced].
func (b *Ledger) Announced(ctx context.Context) (list []audit.Announcement, err error) {
	err = b.view(ctx, "reading announcements", func(tx *bbolt.Tx) error {
		oldest := b.oldest(ledger.AnnouncedLife)
		for _, a := range listed(tx.Bucket(announcedBucket)) {
			if !a.At.Before(oldest) {
				list = append(list, a)
			}
		}
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
		bucket, oldest := tx.Bucket(ownReadsBucket), b.oldest(ledger.OwnReadsLife).UnixMilli()
		for i, id := range ids {
			at := bucket.Get(idKey(id))
			own[i] = at != nil && fromKey(at) >= oldest
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return own, nil
}
