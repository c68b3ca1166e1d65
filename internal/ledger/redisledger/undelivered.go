package redisledger

import (
	"context"
	"errors"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// UndeliveredEntries yields the deferred entries and then the dead letters, oldest first. It
// holds about a mebibyte of them at a time, or a single one that is larger. Entries that are
// recorded or removed in the meantime may be yielded or not; all others are yielded once. An
// entry that cannot be decoded is yielded with its id, outcome and time, and an
// *[audit.UnreadableError]. Any other error ends the iteration.
func (r *Ledger) UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error] {
	return ledger.Undelivered(func(kind audit.Outcome, after string) (list []ledger.Stored, last string, err error) {
		const doing = "reading undelivered entries"
		args := []any{ledger.UndeliveredAtOnce, ledger.UndeliveredBytesAtOnce}
		if at, id, ok := strings.Cut(after, " "); ok {
			args = append(args, at, id)
		}
		answer, err := undeliveredScript.Run(ctx, r.client, r.keys(kind.String(), "undelivered"), args...).StringSlice()
		if err != nil {
			return nil, "", r.wrap(doing, err)
		}
		for ; len(answer) >= 4; answer = answer[4:] {
			last = answer[1] + " " + answer[0]
			if answer[2] == "" {
				continue // it has been lost: see HasUndelivered
			}
			since, _ := strconv.ParseInt(answer[1], 10, 64)
			list = append(list, ledger.Stored{ID: answer[0], Since: since, Text: []byte(answer[3])})
		}
		return list, last, nil
	})
}

// UndeliveredEntry returns the undelivered entry of an id, and whether there is one. If it
// cannot be decoded, UndeliveredEntry returns its id and an *[audit.UnreadableError].
func (r *Ledger) UndeliveredEntry(ctx context.Context, id string) (audit.Undelivered, bool, error) {
	text, err := r.client.HGet(ctx, r.prefix+"undelivered", ledger.StoredID(id)).Bytes()
	if errors.Is(err, redis.Nil) {
		return audit.Undelivered{}, false, nil
	}
	if err != nil {
		return audit.Undelivered{}, false, r.wrap("reading undelivered entry", err)
	}
	u, err := ledger.DecodeUndelivered(id, text)
	return u, true, err
}

// pipelined sends commands in one round trip. A key or a member that does not exist is not
// an error.
func (r *Ledger) pipelined(ctx context.Context, doing string, queue func(p redis.Pipeliner)) error {
	cmds, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		queue(p)
		return nil
	})
	for _, cmd := range cmds { // err is the first of their errors
		if err == nil || errors.Is(err, redis.Nil) {
			err = cmd.Err()
		}
	}
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return r.wrap(doing, err)
}

// UndeliveredCounts returns how many undelivered entries there are. It reads none of them.
func (r *Ledger) UndeliveredCounts(ctx context.Context) (c audit.UndeliveredCounts, err error) {
	var dead, deferred *redis.IntCmd
	var oldest *redis.ZSliceCmd
	err = r.pipelined(ctx, "counting undelivered entries", func(p redis.Pipeliner) {
		dead, deferred = p.ZCard(ctx, r.prefix+"dead"), p.ZCard(ctx, r.prefix+"deferred")
		oldest = p.ZRangeWithScores(ctx, r.prefix+"deferred", 0, 0)
	})
	c.Dead, c.Deferred = int(dead.Val()), int(deferred.Val())
	for _, z := range oldest.Val() {
		c.OldestDeferred = time.UnixMilli(int64(z.Score))
	}
	return c, err
}

// HasUndelivered reports for each id whether its undelivered entry is stored and listed. If
// the outcome of an id is dead or deferred and its entry is not, the entry has been lost:
// nothing would put it again, so it must be read from Kong again.
func (r *Ledger) HasUndelivered(ctx context.Context, ids []string) ([]bool, error) {
	stored := make([]*redis.BoolCmd, len(ids))
	listed := make([][2]*redis.FloatCmd, len(ids))
	err := r.pipelined(ctx, "looking for undelivered entries", func(p redis.Pipeliner) {
		for i, id := range ids {
			id = ledger.StoredID(id)
			stored[i] = p.HExists(ctx, r.prefix+"undelivered", id)
			listed[i] = [2]*redis.FloatCmd{p.ZScore(ctx, r.prefix+"dead", id), p.ZScore(ctx, r.prefix+"deferred", id)}
		}
	})
	if err != nil {
		return nil, err
	}
	has := make([]bool, len(ids))
	for i := range ids {
		has[i] = stored[i].Val() && (listed[i][0].Err() == nil || listed[i][1].Err() == nil)
	}
	return has, nil
}
