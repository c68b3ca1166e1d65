package ledger

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

//go:embed lua/letters.lua
var lettersSource string

var lettersScript = redis.NewScript(lettersSource)

// Letters yields the deferred letters, then the dead ones, oldest first. It holds
// about a mebibyte of them at a time, or one if that is larger. Letters that are
// recorded or removed meanwhile may be yielded or not; all others are, once. An
// error ends it.
func (r *Redis) UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error] {
	return func(yield func(audit.Undelivered, error) bool) {
		for _, kind := range []string{"deferred", "dead"} {
			if !r.lettersOf(ctx, kind, yield) {
				return
			}
		}
	}
}

func (r *Redis) lettersOf(ctx context.Context, kind string, yield func(audit.Undelivered, error) bool) bool {
	args := []any{lettersAtOnce}
	for {
		answer, err := lettersScript.Run(ctx, r.client, r.keys(kind), args...).StringSlice()
		if err != nil {
			yield(audit.Undelivered{}, r.wrap("listing letters", err))
			return false
		}
		if len(answer) == 0 {
			return true
		}
		ids := make([]string, 0, len(answer)/2)
		for i := 0; i+1 < len(answer); i += 2 {
			ids = append(ids, answer[i])
		}
		if !r.yieldLetters(ctx, ids, yield) {
			return false
		}
		args = []any{lettersAtOnce, answer[len(answer)-1], answer[len(answer)-2]}
	}
}

// yieldLetters reads letters, as many at a time as are small enough together.
func (r *Redis) yieldLetters(ctx context.Context, ids []string, yield func(audit.Undelivered, error) bool) bool {
	key := r.prefix + "letters"
	sizes := make([]*redis.IntCmd, len(ids))
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			sizes[i] = p.HStrLen(ctx, key, id)
		}
		return nil
	})
	if err != nil {
		yield(audit.Undelivered{}, r.wrap("sizing letters", err))
		return false
	}
	for from := 0; from < len(ids); {
		to, bytes := from, int64(0)
		for to < len(ids) && (to == from || bytes+sizes[to].Val() <= letterBytesAtOnce) {
			bytes += sizes[to].Val()
			to++
		}
		texts, err := r.client.HMGet(ctx, key, ids[from:to]...).Result()
		if err != nil {
			yield(audit.Undelivered{}, r.wrap("reading letters", err))
			return false
		}
		for i, text := range texts {
			s, ok := text.(string)
			texts[i] = nil
			if !ok {
				continue // removed meanwhile
			}
			letter, err := decodeLetter(ids[from+i], []byte(s))
			if !yield(letter, err) || err != nil {
				return false
			}
		}
		from = to
	}
	return true
}

// Letter returns the letter of an id, and whether there is one.
func (r *Redis) UndeliveredEntry(ctx context.Context, id string) (audit.Undelivered, bool, error) {
	text, err := r.client.HGet(ctx, r.prefix+"letters", storedID(id)).Bytes()
	if errors.Is(err, redis.Nil) {
		return audit.Undelivered{}, false, nil
	}
	if err != nil {
		return audit.Undelivered{}, false, r.wrap("reading letter", err)
	}
	letter, err := decodeLetter(id, text)
	return letter, err == nil, err
}

// UndeliveredCounts returns how many letters there are. It reads none of them.
func (r *Redis) UndeliveredCounts(ctx context.Context) (dead, deferred int, err error) {
	var d, p *redis.IntCmd
	_, err = r.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		d = pipe.ZCard(ctx, r.prefix+"dead")
		p = pipe.ZCard(ctx, r.prefix+"deferred")
		return nil
	})
	if err != nil {
		return 0, 0, r.wrap("counting letters", err)
	}
	return int(d.Val()), int(p.Val()), nil
}

// OldestUndelivered returns since when the oldest letters wait, to the millisecond;
// zero where there are none. It reads none of them.
func (r *Redis) OldestUndelivered(ctx context.Context) (dead, deferred time.Time, err error) {
	var d, p *redis.ZSliceCmd
	_, err = r.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		d = pipe.ZRangeWithScores(ctx, r.prefix+"dead", 0, 0)
		p = pipe.ZRangeWithScores(ctx, r.prefix+"deferred", 0, 0)
		return nil
	})
	if err != nil {
		return time.Time{}, time.Time{}, r.wrap("finding the oldest letters", err)
	}
	oldest := func(z []redis.Z) time.Time {
		if len(z) == 0 {
			return time.Time{}
		}
		return time.UnixMilli(int64(z[0].Score))
	}
	return oldest(d.Val()), oldest(p.Val()), nil
}

// Announce notes ids that a trigger named at a time. The list holds 10,000 ids,
// the latest, for 24 h each; an id that is on it keeps its time.
func (r *Redis) Announce(ctx context.Context, ids []string, at time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	args := []any{at.UnixMilli(), r.now().Add(-announcedLife).UnixMilli(), maxAnnounced, int64(announcedLife / time.Second)}
	for _, id := range ids {
		args = append(args, id)
	}
	return r.wrap("announcing", announceScript.Run(ctx, r.client, r.keys("announced"), args...).Err())
}

// Announced returns what has been announced in the last 24 h and not taken off
// the list, oldest first.
func (r *Redis) Announced(ctx context.Context) ([]audit.Announcement, error) {
	from := strconv.FormatInt(r.now().Add(-announcedLife).UnixMilli(), 10)
	answer, err := r.client.ZRangeByScoreWithScores(ctx, r.prefix+"announced", &redis.ZRangeBy{Min: from, Max: "+inf"}).Result()
	if err != nil {
		return nil, r.wrap("reading announcements", err)
	}
	list := make([]audit.Announcement, 0, len(answer))
	for _, z := range answer {
		id, ok := z.Member.(string)
		if !ok {
			return nil, fmt.Errorf("reading announcements: redis at %s: id of type %T", r.where, z.Member)
		}
		list = append(list, audit.Announcement{ID: id, At: time.UnixMilli(int64(z.Score))})
	}
	return list, nil
}

// Unannounce takes ids off the list.
func (r *Redis) Unannounce(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	members := make([]any, len(ids))
	for i, id := range ids {
		members[i] = id
	}
	return r.wrap("taking back announcements", r.client.ZRem(ctx, r.prefix+"announced", members...).Err())
}
