package redisledger

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// note adds ids to a list, with the time at. The list keeps the latest 10,000 ids, each for
// life. An id that is on the list already keeps its time.
func (r *Ledger) note(ctx context.Context, doing, list string, ids []string, at time.Time, life time.Duration) error {
	if len(ids) == 0 {
		return nil
	}
	args := []any{at.UnixMilli(), time.Now().Add(-life).UnixMilli(), ledger.MaxListed, int64(life / time.Second)}
	for _, id := range ids {
		args = append(args, ledger.StoredID(id))
	}
	return r.wrap(doing, noteScript.Run(ctx, r.client, r.keys(list), args...).Err())
}

// Announce adds ids that a trigger named at a time to the list of announced ids. The list
// keeps the latest 10,000 ids, each for 24 h. An id that is on the list already keeps its
// time.
func (r *Ledger) Announce(ctx context.Context, ids []string, at time.Time) error {
	return r.note(ctx, "announcing", "announced", ids, at, ledger.AnnouncedLife)
}

// Announced returns the list of announced ids, oldest first, each with the time of its first
// announcement.
func (r *Ledger) Announced(ctx context.Context) ([]audit.Announcement, error) {
	const doing = "reading announcements"
	from := strconv.FormatInt(time.Now().Add(-ledger.AnnouncedLife).UnixMilli(), 10)
	answer, err := r.client.ZRangeByScoreWithScores(ctx, r.prefix+"announced", &redis.ZRangeBy{Min: from, Max: "+inf"}).Result()
	if err != nil {
		return nil, r.wrap(doing, err)
	}
	list := make([]audit.Announcement, 0, len(answer))
	for _, z := range answer {
		id, _ := z.Member.(string) // the client makes every member a string
		list = append(list, audit.Announcement{ID: id, At: time.UnixMilli(int64(z.Score))})
	}
	return list, nil
}

// Unannounce strikes ids off the list.
func (r *Ledger) Unannounce(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	members := make([]any, len(ids))
	for i, id := range ids {
		members[i] = ledger.StoredID(id)
	}
	return r.wrap("taking back announcements", r.client.ZRem(ctx, r.prefix+"announced", members...).Err())
}

// NoteOwnReads notes ids under which Kong records reads that a relay of this ledger has
// made. The ledger keeps the latest 10,000 of them, each for an hour.
func (r *Ledger) NoteOwnReads(ctx context.Context, ids []string) error {
	return r.note(ctx, "noting own reads", "ownreads", ids, time.Now(), ledger.OwnReadsLife)
}

// AreOwnReads reports for each id whether NoteOwnReads noted it in the last hour.
func (r *Ledger) AreOwnReads(ctx context.Context, ids []string) ([]bool, error) {
	scores := make([]*redis.FloatCmd, len(ids))
	err := r.pipelined(ctx, "looking up own reads", func(p redis.Pipeliner) {
		for i, id := range ids {
			scores[i] = p.ZScore(ctx, r.prefix+"ownreads", ledger.StoredID(id))
		}
	})
	if err != nil {
		return nil, err
	}
	from := float64(time.Now().Add(-ledger.OwnReadsLife).UnixMilli())
	own := make([]bool, len(ids))
	for i, score := range scores {
		own[i] = score.Val() >= from // 0 for one that is not listed
	}
	return own, nil
}
