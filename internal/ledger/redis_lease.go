package ledger

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

var (
	//go:embed lua/begin.lua
	beginSource string
	//go:embed lua/setmarks.lua
	setMarksSource string
	//go:embed lua/acquire.lua
	acquireSource string
	//go:embed lua/renew.lua
	renewSource string
	//go:embed lua/release.lua
	releaseSource string
	//go:embed lua/announce.lua
	announceSource string
	//go:embed lua/claim.lua
	claimSource string
	//go:embed lua/bind.lua
	bindSource string

	beginScript    = redis.NewScript(beginSource)
	setMarksScript = redis.NewScript(setMarksSource)
	acquireScript  = redis.NewScript(acquireSource)
	renewScript    = redis.NewScript(renewSource)
	releaseScript  = redis.NewScript(releaseSource)
	announceScript = redis.NewScript(announceSource)
	claimScript    = redis.NewScript(claimSource)
	bindScript     = redis.NewScript(bindSource)
)

// Marks returns how far the log has been read; zero for a ledger without marks.
// It fails with [audit.ErrLedgerReplaced] as Record does.
func (r *Redis) Marks(ctx context.Context) (audit.Marks, error) {
	const doing = "reading marks"
	answer, err := r.client.MGet(ctx, r.keys("gen", "marks")...).Result()
	if err != nil {
		return audit.Marks{}, r.wrap(doing, err)
	}
	if generation := r.pin.get(); generation != "" && answer[0] != generation {
		return audit.Marks{}, fmt.Errorf("%s: %w", doing, audit.ErrLedgerReplaced)
	}
	var marks audit.Marks
	if text, ok := answer[1].(string); ok {
		if err := json.Unmarshal([]byte(text), &marks); err != nil {
			return audit.Marks{}, fmt.Errorf("%s: %w", doing, err)
		}
	}
	return marks, nil
}

// SetMarks replaces the marks, for the holder of the lease alone. It fails with
// [audit.ErrLedgerReplaced] or [audit.ErrLeaseLost], and then writes nothing.
func (r *Redis) SetMarks(ctx context.Context, token string, marks audit.Marks) error {
	const doing = "writing marks"
	generation := r.pin.get()
	if generation == "" {
		return fmt.Errorf("%s: %w", doing, errNotBegun)
	}
	text, err := json.Marshal(marks)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	answer, err := setMarksScript.Run(ctx, r.client, r.keys("gen", "lease", "marks", "kong"), generation, token, text, r.pin.kong()).Text()
	switch {
	case err != nil:
		return r.wrap(doing, err)
	case answer == replaced:
		return fmt.Errorf("%s: %w", doing, audit.ErrLedgerReplaced)
	case answer == "lost":
		return fmt.Errorf("%s: %w", doing, audit.ErrLeaseLost)
	case answer != "ok":
		return fmt.Errorf("%s: %w", doing, foreign(answer))
	}
	return nil
}

// Acquire takes the lease, which lasts as long as the options say unless it is
// renewed, and returns the token that proves it. If another holds it, Acquire
// fails with [audit.ErrLeaseHeld], having left word for that one if it was told to.
func (r *Redis) Acquire(ctx context.Context, word bool) (token string, err error) {
	token = rand.Text()
	leave := 0
	if word {
		leave = 1
	}
	words, err := acquireScript.Run(ctx, r.client, r.keys("lease", "word"), token, r.lease.Milliseconds(), leave).Int64()
	if errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("acquiring lease: %w", audit.ErrLeaseHeld)
	}
	if err != nil {
		return "", r.wrap("acquiring lease", err)
	}
	r.seen.set(token, words)
	return token, nil
}

// Renew makes the lease last its whole time from now. It fails with
// [audit.ErrLeaseLost] if the token is no longer that of the lease.
func (r *Redis) Renew(ctx context.Context, token string) error {
	_, err := r.words(ctx, "renewing lease", token, r.lease)
	return err
}

// Word says whether somebody has left word since it, Acquire or Release last said so.
func (r *Redis) Word(ctx context.Context, token string) (bool, error) {
	words, err := r.words(ctx, "looking for word", token, 0)
	if err != nil || words == r.seen.get(token) {
		return false, err
	}
	r.seen.set(token, words)
	return true, nil
}

func (r *Redis) words(ctx context.Context, doing, token string, extend time.Duration) (int64, error) {
	words, err := renewScript.Run(ctx, r.client, r.keys("lease", "word"), token, extend.Milliseconds()).Int64()
	if errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("%s: %w", doing, audit.ErrLeaseLost)
	}
	return words, r.wrap(doing, err)
}

// Release gives up the lease, unless word has been left: then it keeps and renews
// the lease and returns true, and its holder goes round again. It fails with
// [audit.ErrLeaseLost] if the lease was not the token's any more.
func (r *Redis) Release(ctx context.Context, token string) (word bool, err error) {
	before := r.seen.get(token)
	words, err := releaseScript.Run(ctx, r.client, r.keys("lease", "word"), token, before, r.lease.Milliseconds()).Int64()
	if errors.Is(err, redis.Nil) {
		return false, fmt.Errorf("releasing lease: %w", audit.ErrLeaseLost)
	}
	if err != nil {
		return false, r.wrap("releasing lease", err)
	}
	if words == before {
		return false, nil
	}
	r.seen.set(token, words)
	return true, nil
}

// LeaseLeft is how long the lease lasts unless it is renewed, and 0 if nobody has
// it. Unlike Acquire it leaves no word.
func (r *Redis) LeaseLeft(ctx context.Context) (time.Duration, error) {
	left, err := r.client.PTTL(ctx, r.keys("lease")[0]).Result()
	return max(0, left), r.wrap("looking at the lease", err)
}

// Claim says whether a key is claimed for the first time within d. It guards
// against replays; d is at least a millisecond.
func (r *Redis) Claim(ctx context.Context, key string, d time.Duration) (fresh bool, err error) {
	keys := r.keys("claim:" + storedID(key))
	first, err := claimScript.Run(ctx, r.client, keys, rand.Text(), max(1, d.Milliseconds())).Int64()
	return first == 1, r.wrap("claiming", err)
}

// Bind remembers the Admin API that this ledger belongs to. It fails with
// [audit.ErrForeignLedger] if that is another one already and the ledger has
// marks, unless adopt is set. SetMarks fails so as well if another Kong took over
// the binding meanwhile. Credentials in the URL are not kept.
func (r *Redis) Bind(ctx context.Context, url string, adopt bool) error {
	url = address(url)
	replace := 0
	if adopt {
		replace = 1
	}
	bound, err := bindScript.Run(ctx, r.client, r.keys("kong", "marks"), url, replace).Text()
	if err != nil {
		return r.wrap("binding ledger", err)
	}
	if bound != url {
		return fmt.Errorf("binding ledger: %w", foreign(bound))
	}
	r.pin.bind(url)
	return nil
}
