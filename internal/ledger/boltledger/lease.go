package boltledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"go.etcd.io/bbolt"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// Acquire is [redisledger.Ledger.Acquire].
func (b *Ledger) Acquire(ctx context.Context, requestRerun bool) (ledger.Lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, b.wrap("acquiring lease", err)
	}
	b.lease.Lock()
	defer b.lease.Unlock()
	if b.holds(b.lease.token) {
		b.lease.rerun = b.lease.rerun || requestRerun
		return nil, fmt.Errorf("acquiring lease: %w", audit.ErrLeaseHeld)
	}
	b.lease.token, b.lease.until, b.lease.rerun = rand.Text(), b.now().Add(b.lease.ttl), false
	return &lease{b: b, token: b.lease.token}, nil
}

// LeaseLeft is [redisledger.Ledger.LeaseLeft].
func (b *Ledger) LeaseLeft(context.Context) (time.Duration, error) {
	b.lease.Lock()
	defer b.lease.Unlock()
	if !b.holds(b.lease.token) {
		return 0, nil
	}
	return b.lease.until.Sub(b.now()), nil
}

// holds reports whether a token is that of the lease. The lease is locked.
func (b *Ledger) holds(token string) bool {
	return token != "" && b.lease.token == token && b.now().Before(b.lease.until)
}

// lease is the [Lease] of a [Ledger].
type lease struct {
	b     *Ledger
	token string
}

// held runs f under the lock if the lease is still held.
func (l *lease) held(doing string, f func()) error {
	l.b.lease.Lock()
	defer l.b.lease.Unlock()
	if !l.b.holds(l.token) {
		return fmt.Errorf("%s: %w", doing, audit.ErrLeaseLost)
	}
	f()
	return nil
}

func (l *lease) Renew(context.Context) (rerun bool, err error) {
	err = l.held("renewing lease", func() { rerun = l.b.renew() })
	return rerun, err
}

func (l *lease) Release(context.Context) (rerun bool, err error) {
	err = l.held("releasing lease", func() {
		if rerun = l.b.renew(); !rerun {
			l.b.lease.token = ""
		}
	})
	return rerun, err
}

// renew renews the lease, and reports whether a rerun was requested. The lease is locked.
func (b *Ledger) renew() (rerun bool) {
	rerun, b.lease.rerun = b.lease.rerun, false
	b.lease.until = b.now().Add(b.lease.ttl)
	return rerun
}

func (l *lease) SetMarks(ctx context.Context, marks audit.Marks) error {
	const doing = "writing marks"
	b := l.b
	text, err := json.Marshal(marks)
	if err != nil {
		return b.wrap(doing, err)
	}
	return b.write(ctx, doing, func(tx *bbolt.Tx, sequence int64) error {
		// The lease is locked while the marks are written, so that nobody takes it meanwhile.
		b.lease.Lock()
		defer b.lease.Unlock()
		if !b.holds(l.token) {
			return audit.ErrLeaseLost
		}
		meta := tx.Bucket(metaBucket)
		return errors.Join(meta.Put(marksKey, text), meta.Put(marksSequenceKey, toKey(sequence)))
	})
}

// BindKong is [redisledger.Ledger.BindKong].
func (b *Ledger) BindKong(ctx context.Context, url string, adopt bool) error {
	return b.bind(ctx, kongKey, ledger.Address(url), adopt, audit.ErrLedgerMismatch)
}

// BindAccount is [redisledger.Ledger.BindAccount].
func (b *Ledger) BindAccount(ctx context.Context, account string, adopt bool) error {
	return b.bind(ctx, accountKey, account, adopt, audit.ErrAccountMismatch)
}

func (b *Ledger) bind(ctx context.Context, key []byte, value string, adopt bool, mismatch error) error {
	return b.update(ctx, "binding", func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		bound := string(meta.Get(key))
		if bound != "" && bound != value && !adopt && meta.Get(marksKey) != nil {
			return fmt.Errorf("%w: %s", mismatch, bound)
		}
		return meta.Put(key, []byte(value))
	})
}

// ReserveNonce is [redisledger.Ledger.ReserveNonce].
func (b *Ledger) ReserveNonce(ctx context.Context, nonce string, d time.Duration) (fresh bool, err error) {
	err = b.update(ctx, "reserving a nonce", func(tx *bbolt.Tx) error {
		if err := b.purgeExpired(tx); err != nil {
			return err
		}
		nonces, now := tx.Bucket(noncesBucket), b.now()
		key := idKey(nonce)
		if until := nonces.Get(key); until != nil && now.UnixMilli() < fromKey(until) {
			return nil
		}
		fresh = true
		return nonces.Put(key, toKey(now.Add(max(d, time.Millisecond)).UnixMilli()))
	})
	return fresh && err == nil, err
}
