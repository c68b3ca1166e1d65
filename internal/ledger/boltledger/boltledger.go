// Package boltledger is a ledger in a bbolt file, for one relay.
package boltledger

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"go.etcd.io/bbolt"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// Options say whose a ledger in a file is.
type Options struct {
	Source      string // the Kong that is read, by a name of the operator's choice
	Destination string // what it is delivered to; a name that is empty is not compared
	// Adopt takes over a file that was used and does not say by whom.
	Adopt bool
	// MustExist refuses to make a file.
	MustExist bool
	LeaseTTL  time.Duration // 0: [ledger.DefaultLease]
}

// Ledger is a ledger in a file of one node. The file is locked while it is open, so
// that one process at a time has it; the lease is among users of this one value.
// What is written is synced to disk before a method returns.
type Ledger struct {
	db   *bbolt.DB
	path string
	pin  ledger.Pin
	now  func() time.Time

	file struct {
		sync.Mutex
		info   os.FileInfo // when it was opened, or last written to
		broken error       // once bbolt has met a broken page, as it may hold its lock since
	}
	purgeNext time.Time // guarded by being in a transaction that writes
	lease     struct {
		sync.Mutex
		ttl   time.Duration
		token string
		until time.Time
		rerun bool // requested since the holder was last told
	}
}

// Buckets of the file.
var (
	metaBucket        = []byte("meta")         // generation, marks, kong
	daysBucket        = []byte("days")         // day → bucket of id → outcome
	expiryBucket      = []byte("expiry")       // day → Unix seconds
	undeliveredBucket = []byte("undelivered")  // id → entry
	sinceBucket       = []byte("since")        // id → outcome, Unix milliseconds
	deadBucket        = []byte("dead")         // Unix milliseconds, id → nothing
	deferredBucket    = []byte("deferred")     // the same
	announcedBucket   = []byte("announced")    // id → Unix milliseconds
	ownReadsBucket    = []byte("own_reads")    // id → Unix milliseconds
	noncesBucket      = []byte("nonces")       // nonce → Unix milliseconds until it is free
	outagesBucket     = []byte("outages")      // Unix milliseconds, id → outage
	itemsBucket       = []byte("items")        // key → Unix seconds, value
	itemsExpiryBucket = []byte("items_expiry") // Unix seconds, key → nothing

	allBuckets = [][]byte{
		metaBucket, daysBucket, expiryBucket, undeliveredBucket, sinceBucket, deadBucket, deferredBucket, announcedBucket,
		ownReadsBucket, noncesBucket, outagesBucket, itemsBucket, itemsExpiryBucket,
	}

	generationKey = []byte("generation")
	marksKey      = []byte("marks")
	kongKey       = []byte("kong")
	accountKey    = []byte("account")

	sourceKey      = []byte("source")
	destinationKey = []byte("destination")

	sequenceKey      = []byte("sequence")
	marksSequenceKey = []byte("marks_sequence") // at which the marks were written
)

// Open opens a ledger in a file, which it makes if there is none, for its
// owner alone. It waits a second at most for another process to let go of it. It
// refuses a file that is broken, or that is the ledger of another source or
// destination.
func Open(path string, o Options) (*Ledger, error) {
	if o.MustExist {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) { //nolint:gosec // the path is a setting
			return nil, audit.SettingsErrorf("correct the path in --ledger, or let the relay run first, which makes the file", "%w: %s", audit.ErrNoLedger, path)
		}
	}
	b := &Ledger{path: path, now: time.Now}
	b.lease.ttl = cmp.Or(o.LeaseTTL, ledger.DefaultLease)
	if err := b.open(); err != nil {
		return nil, err
	}
	err := b.guarded("opening", func() error {
		return b.db.Update(func(tx *bbolt.Tx) error {
			if size := b.file.info.Size(); size < tx.Size() { // bbolt does not look
				return cutOff(size, tx.Size())
			}
			for _, name := range allBuckets {
				if _, err := tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
			}
			return claimFile(tx, o)
		})
	})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Ledger) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: ledger %s: %w", doing, b.path, err)
}

func (b *Ledger) update(ctx context.Context, doing string, f func(tx *bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return b.wrap(doing, err)
	}
	return b.guarded(doing, func() error {
		if err := b.checkFile(); err != nil {
			return err
		}
		return b.db.Update(f)
	})
}

func (b *Ledger) view(ctx context.Context, doing string, f func(tx *bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return b.wrap(doing, err)
	}
	return b.guarded(doing, func() error { return b.db.View(f) })
}

// check returns an error if the ledger is not the one that Begin found.
func (b *Ledger) check(tx *bbolt.Tx) error {
	return b.pin.Check(string(tx.Bucket(metaBucket).Get(generationKey)), number(tx, sequenceKey), number(tx, marksSequenceKey))
}

// write is update for what the ledger's sequence counts. f gets the sequence.
func (b *Ledger) write(ctx context.Context, doing string, f func(tx *bbolt.Tx, sequence int64) error) error {
	var sequence int64
	generation, _ := b.pin.Get()
	err := b.update(ctx, doing, func(tx *bbolt.Tx) error {
		if generation == "" {
			return ledger.ErrNotBegun
		}
		if err := b.check(tx); err != nil {
			return err
		}
		sequence = number(tx, sequenceKey) + 1
		if err := tx.Bucket(metaBucket).Put(sequenceKey, toKey(sequence)); err != nil {
			return err
		}
		return f(tx, sequence)
	})
	if err == nil {
		b.pin.Saw(generation, sequence)
	}
	return err
}

// number returns a number of the ledger, or 0.
func number(tx *bbolt.Tx, key []byte) int64 {
	if v := tx.Bucket(metaBucket).Get(key); len(v) == 8 {
		return fromKey(v)
	}
	return 0
}

// Begin is [redisledger.Ledger.Begin].
func (b *Ledger) Begin(ctx context.Context) error {
	const doing = "beginning"
	var generation string
	var sequence int64
	var isOlder bool
	err := b.update(ctx, doing, func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		generation, sequence = string(meta.Get(generationKey)), number(tx, sequenceKey)
		known, seen := b.pin.Get()
		if generation != known {
			seen = 0
		}
		isOlder = generation != "" && sequence < max(seen, number(tx, marksSequenceKey))
		if generation != "" && !isOlder {
			return b.purgeExpired(tx)
		}
		generation, sequence = rand.Text(), sequence+1
		return errors.Join(meta.Delete(marksKey), meta.Delete(marksSequenceKey),
			meta.Put(generationKey, []byte(generation)), meta.Put(sequenceKey, toKey(sequence)))
	})
	if err != nil {
		return err
	}
	b.pin.Set(generation, sequence)
	if isOlder {
		return b.wrap(doing, audit.ErrLedgerOlder)
	}
	return nil
}

// Marks is [redisledger.Ledger.Marks].
func (b *Ledger) Marks(ctx context.Context) (marks audit.Marks, err error) {
	err = b.view(ctx, "reading marks", func(tx *bbolt.Tx) error {
		if err := b.check(tx); err != nil {
			return err
		}
		if text := tx.Bucket(metaBucket).Get(marksKey); text != nil {
			if err := json.Unmarshal(text, &marks); err != nil {
				return audit.NewSettingsError(err, brokenHint)
			}
		}
		return nil
	})
	return marks, err
}

// Ping reports whether the file is open.
func (b *Ledger) Ping(ctx context.Context) error {
	return b.view(ctx, "pinging", func(*bbolt.Tx) error { return nil })
}

// Check finds nothing to warn of: a file has no settings.
func (b *Ledger) Check(context.Context) (warnings []string, err error) { return nil, nil }

// Close closes the file, once the calls under way have ended.
func (b *Ledger) Close() error {
	if b.broken() != nil {
		return nil //nolint:nilerr // bbolt may hold its lock, and close without end; the process ends
	}
	return b.wrap("closing", b.db.Close())
}

// toKey writes a number so that keys sort as the numbers do.
func toKey(n int64) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(n)^(1<<63))
}

// fromKey reads a number that toKey has written. Anything else is 0: a time that is long over, so
// that one broken value does not make the whole file unreadable.
func fromKey(b []byte) int64 {
	if len(b) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b) ^ (1 << 63))
}
