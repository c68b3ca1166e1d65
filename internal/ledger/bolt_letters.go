package ledger

import (
	"bytes"
	"context"
	"iter"
	"sort"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// putLetter stores the letter of a record, or removes the one that its id had.
func putLetter(tx *bbolt.Tx, rec *audit.Record, final audit.Outcome, text []byte) error {
	id := idKey(rec.ID)
	since, letters := tx.Bucket(sinceBucket), tx.Bucket(lettersBucket)
	if had := since.Get(id); had != nil {
		place := append(bytes.Clone(had[1:]), id...)
		if err := tx.Bucket(kindOf(audit.Outcome(had[0]))).Delete(place); err != nil {
			return err
		}
		if err := since.Delete(id); err != nil {
			return err
		}
		if err := letters.Delete(id); err != nil {
			return err
		}
	}
	if text == nil || final != rec.Outcome {
		return nil
	}
	when := toKey(rec.Undelivered.Since.UnixMilli())
	if err := since.Put(id, append([]byte{byte(final)}, when...)); err != nil {
		return err
	}
	if err := tx.Bucket(kindOf(final)).Put(append(when, id...), nil); err != nil {
		return err
	}
	return letters.Put(id, text)
}

func kindOf(o audit.Outcome) []byte {
	if o == audit.Deferred {
		return deferredBucket
	}
	return deadBucket
}

// Letters is [Redis.Letters].
func (b *Bolt) UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error] {
	return func(yield func(audit.Undelivered, error) bool) {
		for _, kind := range [][]byte{deferredBucket, deadBucket} {
			var after []byte
			for {
				// A caller may record while it reads, so no transaction is open when it is called.
				letters, last, err := b.lettersAfter(ctx, kind, after)
				if err != nil {
					yield(audit.Undelivered{}, err)
					return
				}
				for i := range letters {
					if !yield(letters[i], nil) {
						return
					}
				}
				if last == nil {
					break
				}
				after = last
			}
		}
	}
}

// lettersAfter reads some letters and returns the place of the last, or nil at the end.
func (b *Bolt) lettersAfter(ctx context.Context, kind, after []byte) (list []audit.Undelivered, last []byte, err error) {
	err = b.view(ctx, "reading letters", func(tx *bbolt.Tx) error {
		letters, c := tx.Bucket(lettersBucket), tx.Bucket(kind).Cursor()
		k, _ := c.Seek(after)
		if after != nil && bytes.Equal(k, after) {
			k, _ = c.Next()
		}
		for size := 0; k != nil; k, _ = c.Next() {
			text := letters.Get(k[8:])
			if len(list) > 0 && (len(list) == lettersAtOnce || size+len(text) > letterBytesAtOnce) {
				return nil
			}
			letter, err := decodeLetter(string(k[9:]), text)
			if err != nil {
				return err
			}
			list, last, size = append(list, letter), bytes.Clone(k), size+len(text)
		}
		last = nil
		return nil
	})
	return list, last, err
}

// Letter is [Redis.Undelivered].
func (b *Bolt) UndeliveredEntry(ctx context.Context, id string) (letter audit.Undelivered, ok bool, err error) {
	err = b.view(ctx, "reading letter", func(tx *bbolt.Tx) error {
		text := tx.Bucket(lettersBucket).Get(idKey(id))
		if text == nil {
			return nil
		}
		ok = true
		var err error
		letter, err = decodeLetter(id, text)
		return err
	})
	return letter, ok && err == nil, err
}

// UndeliveredCounts is [Redis.UndeliveredCounts].
func (b *Bolt) UndeliveredCounts(ctx context.Context) (dead, deferred int, err error) {
	err = b.view(ctx, "counting letters", func(tx *bbolt.Tx) error {
		dead, deferred = tx.Bucket(deadBucket).Stats().KeyN, tx.Bucket(deferredBucket).Stats().KeyN
		return nil
	})
	return dead, deferred, err
}

// OldestUndelivered is [Redis.OldestUndelivered].
func (b *Bolt) OldestUndelivered(ctx context.Context) (dead, deferred time.Time, err error) {
	err = b.view(ctx, "finding the oldest letters", func(tx *bbolt.Tx) error {
		if k, _ := tx.Bucket(deadBucket).Cursor().First(); k != nil {
			dead = time.UnixMilli(fromKey(k[:8]))
		}
		if k, _ := tx.Bucket(deferredBucket).Cursor().First(); k != nil {
			deferred = time.UnixMilli(fromKey(k[:8]))
		}
		return nil
	})
	return dead, deferred, err
}

// Announce is [Redis.Announce].
func (b *Bolt) Announce(ctx context.Context, ids []string, at time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	return b.update(ctx, "announcing", func(tx *bbolt.Tx) error {
		announced := tx.Bucket(announcedBucket)
		list, oldest, drop := announcements(announced), b.oldestAnnounced(), 0
		for drop < len(list) && list[drop].At.Before(oldest) {
			drop++
		}
		if err := unannounce(announced, list[:drop]); err != nil {
			return err
		}
		when := toKey(at.UnixMilli())
		for _, id := range ids {
			key := []byte("i" + id)
			if announced.Get(key) != nil {
				continue
			}
			if err := announced.Put(key, when); err != nil {
				return err
			}
		}
		list = announcements(announced)
		return unannounce(announced, list[:max(0, len(list)-maxAnnounced)])
	})
}

func (b *Bolt) oldestAnnounced() time.Time {
	return b.now().Add(-announcedLife).Truncate(time.Millisecond)
}

// announcements returns the list, oldest first, and by id within a millisecond.
func announcements(bucket *bbolt.Bucket) []audit.Announcement {
	var list []audit.Announcement
	c := bucket.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		list = append(list, audit.Announcement{ID: string(k[1:]), At: time.UnixMilli(fromKey(v))})
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].At.Before(list[j].At) })
	return list
}

func unannounce(bucket *bbolt.Bucket, list []audit.Announcement) error {
	for _, a := range list {
		if err := bucket.Delete([]byte("i" + a.ID)); err != nil {
			return err
		}
	}
	return nil
}

// Announced is [Redis.Announced].
func (b *Bolt) Announced(ctx context.Context) (list []audit.Announcement, err error) {
	err = b.view(ctx, "reading announcements", func(tx *bbolt.Tx) error {
		oldest := b.oldestAnnounced()
		for _, a := range announcements(tx.Bucket(announcedBucket)) {
			if !a.At.Before(oldest) {
				list = append(list, a)
			}
		}
		return nil
	})
	return list, err
}

// Unannounce is [Redis.Unannounce].
func (b *Bolt) Unannounce(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return b.update(ctx, "taking back announcements", func(tx *bbolt.Tx) error {
		for _, id := range ids {
			if err := tx.Bucket(announcedBucket).Delete([]byte("i" + id)); err != nil {
				return err
			}
		}
		return nil
	})
}
