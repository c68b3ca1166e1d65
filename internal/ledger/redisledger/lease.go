package redisledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// Marks returns how far the log has been read; zero for a ledger without marks.
// It fails with [audit.ErrLedgerReplaced] or [audit.ErrLedgerOlder] as Record does.
func (r *Ledger) Marks(ctx context.Context) (audit.Marks, error) {
	const doing = "reading marks"
	answer, err := r.client.MGet(ctx, r.keys("gen", "marks", "seq")...).Result()
	if err != nil {
		return audit.Marks{}, r.wrap(doing, err)
	}
	generation, _ := answer[0].(string)
	stored, _ := answer[1].(string)
	at, text, _ := strings.Cut(stored, " ")
	sequence, _ := number(answer[2]) // 0 if there is none
	written, _ := number(at)
	if err := r.pin.Check(generation, sequence, written); err != nil {
		return audit.Marks{}, fmt.Errorf("%s: %w", doing, err)
	}
	if stored == "" {
		return audit.Marks{}, nil
	}
	var marks audit.Marks
	if err := json.Unmarshal([]byte(text), &marks); err != nil {
		return audit.Marks{}, r.foreign(doing, err)
	}
	return marks, nil
}

// Acquire takes the lease. If another relay holds it, Acquire fails with
// [audit.ErrLeaseHeld], and if requestRerun is set, it requests a rerun from that relay.
func (r *Ledger) Acquire(ctx context.Context, requestRerun bool) (ledger.Lease, error) {
	l := &lease{r: r, token: rand.Text()}
	reruns, err := l.run(ctx, "acquiring lease", acquireScript, audit.ErrLeaseHeld, r.leaseTTL.Milliseconds(), requestRerun)
	if err != nil {
		return nil, err
	}
	l.seen.Store(reruns)
	return l, nil
}

// lease is the [ledger.Lease] of a [Ledger].
type lease struct {
	r     *Ledger
	token string
	seen  atomic.Int64 // rerun requests that the holder knows of
}

// run runs a script that returns how many reruns have been requested, or nothing if the
// lease is not the caller's. In that case run fails with notOurs.
func (l *lease) run(ctx context.Context, doing string, script *redis.Script, notOurs error, args ...any) (reruns int64, err error) {
	reruns, err = script.Run(ctx, l.r.client, l.r.keys("lease", "reruns"), append([]any{l.token}, args...)...).Int64()
	if errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("%s: %w", doing, notOurs)
	}
	return reruns, l.r.wrap(doing, err)
}

func (l *lease) Renew(ctx context.Context) (rerun bool, err error) {
	reruns, err := l.run(ctx, "renewing lease", renewScript, audit.ErrLeaseLost, l.r.leaseTTL.Milliseconds())
	return err == nil && l.seen.Swap(reruns) != reruns, err
}

func (l *lease) Release(ctx context.Context) (rerun bool, err error) {
	reruns, err := l.run(ctx, "releasing lease", releaseScript, audit.ErrLeaseLost, l.seen.Load(), l.r.leaseTTL.Milliseconds())
	return err == nil && l.seen.Swap(reruns) != reruns, err
}

func (l *lease) SetMarks(ctx context.Context, marks audit.Marks) error {
	const doing = "writing marks"
	r := l.r
	if !r.pin.Begun() {
		return fmt.Errorf("%s: %w", doing, ledger.ErrNotBegun)
	}
	text, err := json.Marshal(marks)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	kong := ""
	if bound := r.kong.Load(); bound != nil {
		kong = *bound
	}
	word, answer, err := r.run(ctx, doing, setMarksScript, r.keys("gen", "seq", "lease", "marks", "kong"), []any{nil, nil, l.token, text, kong})
	if err == nil && word == otherKong {
		err = fmt.Errorf("%s: %w: %s", doing, audit.ErrLedgerMismatch, answer[0])
	}
	return err
}

// LeaseLeft returns how long the lease lasts unless it is renewed, and 0 if nobody
// holds it. Unlike Acquire it requests no rerun.
func (r *Ledger) LeaseLeft(ctx context.Context) (time.Duration, error) {
	left, err := r.client.PTTL(ctx, r.keys("lease")[0]).Result()
	return max(0, left), r.wrap("looking at the lease", err)
}

// ReserveNonce reserves a nonce for d, at least a millisecond, and reports whether the nonce
// was free. It guards against replays.
func (r *Ledger) ReserveNonce(ctx context.Context, nonce string, d time.Duration) (fresh bool, err error) {
	keys := r.keys("nonce:" + ledger.StoredID(nonce))
	first, err := nonceScript.Run(ctx, r.client, keys, rand.Text(), max(1, d.Milliseconds())).Int64()
	return first == 1, r.wrap("reserving a nonce", err)
}

// BindKong binds the ledger to an Admin API. It fails with [audit.ErrLedgerMismatch] if the
// ledger has marks and is bound to another one, unless adopt is set. SetMarks fails in the
// same way if another Kong has taken over the ledger in the meantime. Credentials in the URL
// are not stored.
func (r *Ledger) BindKong(ctx context.Context, url string, adopt bool) error {
	url = ledger.Address(url)
	err := r.bind(ctx, "binding ledger", r.keys("kong", "marks"), url, adopt, audit.ErrLedgerMismatch)
	if err == nil {
		r.kong.Store(&url)
	}
	return err
}

// BindAccount binds the ledger to the AWS account to which entries are delivered, for a
// destination whose name does not say the account. It fails with [audit.ErrAccountMismatch]
// if the ledger has marks and is bound to another one, unless adopt is set.
func (r *Ledger) BindAccount(ctx context.Context, account string, adopt bool) error {
	return r.bind(ctx, "binding ledger to an account", r.keys("account", "marks"), account, adopt, audit.ErrAccountMismatch)
}

func (r *Ledger) bind(ctx context.Context, doing string, keys []string, value string, adopt bool, mismatch error) error {
	bound, err := bindScript.Run(ctx, r.client, keys, value, adopt).Text()
	if err == nil && bound != value {
		return fmt.Errorf("%s: %w: %s", doing, mismatch, bound)
	}
	return r.wrap(doing, err)
}
