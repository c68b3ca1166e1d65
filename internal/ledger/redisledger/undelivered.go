package redisledger

import (
	"context"
	_ "embed"
	"errors"
	"iter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

//go:embed lua/undelivered.lua
var undeliveredSource string

var undeliveredScript = redis.NewScript(undeliveredSource)

// UndeliveredEntries yields the deferred entries, then the dead letters, oldest
// first. It holds about a mebibyte of them at a time, or one if that is larger.
// Entries that are recorded or removed meanwhile may be yielded or not; all others
// are yielded once. An error ends the iteration.
func (r *Ledger) UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error] {
	return func(yield func(audit.Undelivered, error) bool) {
		for _, kind := range []string{"deferred", "dead"} {
			if !r.undeliveredOf(ctx, kind, yield) {
				return
			}
		}
	}
}

func (r *Ledger) undeliveredOf(ctx context.Context, kind string, yield func(audit.Undelivered, error) bool) bool {
	args := []any{ledger.UndeliveredAtOnce}
	for {
		answer, err := undeliveredScript.Run(ctx, r.client, r.keys(kind), args...).StringSlice()
		if err != nil {
			yield(audit.Undelivered{}, r.wrap("listing undelivered entries", err))
			return false
		}
		if len(answer) == 0 {
			return true
		}
		ids := make([]string, 0, len(answer)/2)
		for i := 0; i+1 < len(answer); i += 2 {
			ids = append(ids, answer[i])
		}
		if !r.yieldUndelivered(ctx, ids, yield) {
			return false
		}
		args = []any{ledger.UndeliveredAtOnce, answer[len(answer)-1], answer[len(answer)-2]}
	}
}

// yieldUndelivered reads undelivered entries, as many at a time as are small enough together.
func (r *Ledger) yieldUndelivered(ctx context.Context, ids []string, yield func(audit.Undelivered, error) bool) bool {
	key := r.prefix + "undelivered"
	sizes := make([]*redis.IntCmd, len(ids))
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			sizes[i] = p.HStrLen(ctx, key, id)
		}
		return nil
	})
	if err != nil {
		yield(audit.Undelivered{}, r.wrap("sizing undelivered entries", err))
		return false
	}
	for from := 0; from < len(ids); {
		to, bytes := from, int64(0)
		for to < len(ids) && (to == from || bytes+sizes[to].Val() <= ledger.UndeliveredBytesAtOnce) {
			bytes += sizes[to].Val()
			to++
		}
		texts, err := r.client.HMGet(ctx, key, ids[from:to]...).Result()
		if err != nil {
			yield(audit.Undelivered{}, r.wrap("reading undelivered entries", err))
			return false
		}
		for i, text := range texts {
			s, ok := text.(string)
			texts[i] = nil
			if !ok {
				continue // removed meanwhile
			}
			u, err := ledger.DecodeUndelivered(ids[from+i], []byte(s))
			if !yield(u, err) || err != nil {
				return false
			}
		}
		from = to
	}
	return true
}

// UndeliveredEntry returns the undelivered entry of an id, and whether there is one.
func (r *Ledger) UndeliveredEntry(ctx context.Context, id string) (audit.Undelivered, bool, error) {
	text, err := r.client.HGet(ctx, r.prefix+"undelivered", ledger.StoredID(id)).Bytes()
	if errors.Is(err, redis.Nil) {
		return audit.Undelivered{}, false, nil
	}
	if err != nil {
		return audit.Undelivered{}, false, r.wrap("reading undelivered entry", err)
	}
	u, err := ledger.DecodeUndelivered(id, text)
	return u, err == nil, err
}

// UndeliveredCounts returns how many undelivered entries there are. It reads none of them.
func (r *Ledger) UndeliveredCounts(ctx context.Context) (dead, deferred int, err error) {
	var d, p *redis.IntCmd
	_, err = r.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		d = pipe.ZCard(ctx, r.prefix+"dead")
		p = pipe.ZCard(ctx, r.prefix+"deferred")
		return nil
	})
	if err != nil {
		return 0, 0, r.wrap("counting undelivered entries", err)
	}
	return int(d.Val()), int(p.Val()), nil
}

// OldestUndelivered returns since when the oldest undelivered entries wait, to the millisecond;
// zero where there are none. It reads none of them.
func (r *Ledger) OldestUndelivered(ctx context.Context) (dead, deferred time.Time, err error) {
	var d, p *redis.ZSliceCmd
	_, err = r.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		d = pipe.ZRangeWithScores(ctx, r.prefix+"dead", 0, 0)
		p = pipe.ZRangeWithScores(ctx, r.prefix+"deferred", 0, 0)
		return nil
	})
	if err != nil {
		return time.Time{}, time.Time{}, r.wrap("finding the oldest undelivered entries", err)
	}
	oldest := func(z []redis.Z) time.Time {
		if len(z) == 0 {
			return time.Time{}
		}
		return time.UnixMilli(int64(z[0].Score))
	}
	return oldest(d.Val()), oldest(p.Val()), nil
}

// HasUndelivered reports for each id whether its undelivered entry is stored, and
// listed. One that is dead or deferred and is not has been lost: nothing would put it
// again, so it must be read from Kong again.
func (r *Ledger) HasUndelivered(ctx context.Context, ids []string) ([]bool, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	stored := make([]*redis.BoolCmd, len(ids))
	listed := make([][2]*redis.FloatCmd, len(ids))
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			id = ledger.StoredID(id)
			stored[i] = p.HExists(ctx, r.prefix+"undelivered", id)
			listed[i] = [2]*redis.FloatCmd{p.ZScore(ctx, r.prefix+"dead", id), p.ZScore(ctx, r.prefix+"deferred", id)}
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) { // which says that one is not in a list
		return nil, r.wrap("looking for undelivered entries", err)
	}
	has := make([]bool, len(ids))
	for i := range ids {
		dead, deferred := listed[i][0].Err(), listed[i][1].Err()
		for _, err := range []error{stored[i].Err(), dead, deferred} {
			if err != nil && !errors.Is(err, redis.Nil) {
				return nil, r.wrap("looking for undelivered entries", err)
			}
		}
		has[i] = stored[i].Val() && (dead == nil || deferred == nil)
	}
	return has, nil
}
