package redisledger

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

var (
	//go:embed lua/setmarks.lua
	setMarksSource string
	//go:embed lua/acquire.lua
	acquireSource string
	//go:embed lua/renew.lua
	renewSource string
	//go:embed lua/release.lua
	releaseSource string
	//go:embed lua/nonce.lua
	nonceSource string
	//go:embed lua/bind.lua
	bindSource string

	setMarksScript = redis.NewScript(guardSource + setMarksSource)
	acquireScript  = redis.NewScript(acquireSource)
	renewScript    = redis.NewScript(renewSource)
	releaseScript  = redis.NewScript(releaseSource)
	nonceScript    = redis.NewScript(nonceSource)
	bindScript     = redis.NewScript(bindSource)
)

// Marks returns how far the log has been read; zero for a ledger without marks.
// It fails with [audit.ErrLedgerReplaced] or [audit.ErrLedgerOlder] as Record does.
func (r *Ledger) Marks(ctx context.Context) (audit.Marks, error) {
	const doing = "reading marks"
	answer, err := r.client.MGet(ctx, r.keys("gen", "marks", "seq")...).Result()
	if err != nil {
		return audit.Marks{}, r.wrap(doing, err)
	}
	known, seen := r.pin.Get()
	sequence, _ := toSequence(answer[2])
	stored, _ := answer[1].(string)
	number, text, _ := strings.Cut(stored, " ")
	written, _ := toSequence(number)
	switch {
	case known != "" && answer[0] != known:
		return audit.Marks{}, fmt.Errorf("%s: %w", doing, audit.ErrLedgerReplaced)
	case known != "" && sequence < max(seen, written):
		return audit.Marks{}, fmt.Errorf("%s: %w", doing, audit.ErrLedgerOlder)
	case stored == "":
		return audit.Marks{}, nil
	}
	var marks audit.Marks
	if err := json.Unmarshal([]byte(text), &marks); err != nil {
		return audit.Marks{}, audit.SettingsErrorf("something else writes keys of these names: give the ledger a --redis-prefix or a Redis of its own",
			"%s: redis at %s: they are not what a relay writes: %w", doing, r.client.Where, err)
	}
	return marks, nil
}

// Acquire takes the lease. If another relay holds it, Acquire fails with
// [audit.ErrLeaseHeld], having asked that one for a rerun if requestRerun is set.
func (r *Ledger) Acquire(ctx context.Context, requestRerun bool) (ledger.Lease, error) {
	token, request := rand.Text(), 0
	if requestRerun {
		request = 1
	}
	reruns, err := acquireScript.Run(ctx, r.client, r.keys("lease", "reruns"), token, r.leaseTTL.Milliseconds(), request).Int64()
	if errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("acquiring lease: %w", audit.ErrLeaseHeld)
	}
	if err != nil {
		return nil, r.wrap("acquiring lease", err)
	}
	return &lease{r: r, token: token, seen: reruns}, nil
}

// lease is the [Lease] of a [Ledger].
type lease struct {
	r     *Ledger
	token string

	mu   sync.Mutex
	seen int64 // rerun requests that the holder has been told of
}

func (l *lease) Renew(ctx context.Context) error {
	_, err := l.reruns(ctx, "renewing lease", l.r.leaseTTL)
	return err
}

func (l *lease) RerunRequested(ctx context.Context) (bool, error) {
	reruns, err := l.reruns(ctx, "looking for a rerun request", 0)
	return err == nil && l.tell(reruns), err
}

// tell reports whether there are more rerun requests than the holder has been told of.
func (l *lease) tell(reruns int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	more := reruns != l.seen
	l.seen = reruns
	return more
}

func (l *lease) told() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen
}

func (l *lease) reruns(ctx context.Context, doing string, extend time.Duration) (int64, error) {
	reruns, err := renewScript.Run(ctx, l.r.client, l.r.keys("lease", "reruns"), l.token, extend.Milliseconds()).Int64()
	if errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("%s: %w", doing, audit.ErrLeaseLost)
	}
	return reruns, l.r.wrap(doing, err)
}

func (l *lease) Release(ctx context.Context) (rerun bool, err error) {
	const doing = "releasing lease"
	reruns, err := releaseScript.Run(ctx, l.r.client, l.r.keys("lease", "reruns"), l.token, l.told(), l.r.leaseTTL.Milliseconds()).Int64()
	if errors.Is(err, redis.Nil) {
		return false, fmt.Errorf("%s: %w", doing, audit.ErrLeaseLost)
	}
	if err != nil {
		return false, l.r.wrap(doing, err)
	}
	return l.tell(reruns), nil
}

func (l *lease) SetMarks(ctx context.Context, marks audit.Marks) error {
	const doing = "writing marks"
	r := l.r
	known, seen := r.pin.Get()
	if known == "" {
		return fmt.Errorf("%s: %w", doing, ledger.ErrNotBegun)
	}
	text, err := json.Marshal(marks)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	answer, err := r.run(ctx, doing, setMarksScript, r.keys("gen", "seq", "lease", "marks", "kong"), known,
		[]any{known, seen, l.token, text, r.pin.Kong()})
	if err != nil {
		return err
	}
	switch answer[0] {
	case "lost":
		return fmt.Errorf("%s: %w", doing, audit.ErrLeaseLost)
	case "foreign":
		bound, _ := answer[len(answer)-1].(string)
		return fmt.Errorf("%s: %w", doing, ledger.Mismatch(bound))
	}
	return nil
}

// LeaseLeft returns how long the lease lasts unless it is renewed, and 0 if nobody
// holds it. Unlike Acquire it requests no rerun.
func (r *Ledger) LeaseLeft(ctx context.Context) (time.Duration, error) {
	left, err := r.client.PTTL(ctx, r.keys("lease")[0]).Result()
	return max(0, left), r.wrap("looking at the lease", err)
}

// ReserveNonce reports whether a nonce has not been reserved in the last d, and
// reserves it if so. It guards against replays; d is at least a millisecond.
func (r *Ledger) ReserveNonce(ctx context.Context, nonce string, d time.Duration) (fresh bool, err error) {
	keys := r.keys("nonce:" + ledger.StoredID(nonce))
	first, err := nonceScript.Run(ctx, r.client, keys, rand.Text(), max(1, d.Milliseconds())).Int64()
	return first == 1, r.wrap("reserving a nonce", err)
}

// BindKong remembers the Admin API that this ledger belongs to. It fails with
// [audit.ErrLedgerMismatch] if that is another one already and the ledger has
// marks, unless adopt is set. SetMarks fails so as well if another Kong took over
// the binding meanwhile. Credentials in the URL are not kept.
func (r *Ledger) BindKong(ctx context.Context, url string, adopt bool) error {
	url = ledger.Address(url)
	replace := 0
	if adopt {
		replace = 1
	}
	bound, err := bindScript.Run(ctx, r.client, r.keys("kong", "marks"), url, replace).Text()
	if err != nil {
		return r.wrap("binding ledger", err)
	}
	if bound != url {
		return fmt.Errorf("binding ledger: %w", ledger.Mismatch(bound))
	}
	r.pin.Bind(url)
	return nil
}

// BindAccount remembers the AWS account that entries are delivered to, where the
// destination's name does not say it. It fails with [audit.ErrAccountMismatch] if that
// is another one already and the ledger has marks, unless adopt is set.
func (r *Ledger) BindAccount(ctx context.Context, account string, adopt bool) error {
	const doing = "binding ledger to an account"
	replace := 0
	if adopt {
		replace = 1
	}
	bound, err := bindScript.Run(ctx, r.client, r.keys("account", "marks"), account, replace).Text()
	if err != nil {
		return r.wrap(doing, err)
	}
	if bound != account {
		return fmt.Errorf("%s: %w: %s", doing, audit.ErrAccountMismatch, bound)
	}
	return nil
}
