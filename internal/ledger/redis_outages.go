package ledger

import (
	"context"
	_ "embed"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	maxOutages = 10_000
	outageLife = 400 * 24 * time.Hour
)

//go:embed lua/outage.lua
var outageSource string

var outageScript = redis.NewScript(outageSource)

// PutOutage stores an outage, or replaces the one that has its id and began at the
// same time. The ledger keeps the latest 10,000, for 400 days each.
func (r *Redis) PutOutage(ctx context.Context, o audit.Outage) error {
	text, err := json.Marshal(o)
	if err != nil {
		return r.wrap("storing an outage", err)
	}
	return r.wrap("storing an outage", outageScript.Run(ctx, r.client, r.keys("outages", "outage"), o.From.UnixMilli(), o.ID, text,
		r.now().Add(-outageLife).UnixMilli(), maxOutages, int64(outageLife/time.Second)).Err())
}

// Outages returns the outages that had not ended by a time, oldest first.
func (r *Redis) Outages(ctx context.Context, since time.Time) (list []audit.Outage, err error) {
	const doing = "reading outages"
	ids, err := r.client.ZRange(ctx, r.prefix+"outages", 0, -1).Result()
	if err != nil || len(ids) == 0 {
		return nil, r.wrap(doing, err)
	}
	texts, err := r.client.HMGet(ctx, r.prefix+"outage", ids...).Result()
	if err != nil {
		return nil, r.wrap(doing, err)
	}
	for _, text := range texts {
		if s, ok := text.(string); ok {
			if list, err = appendOutage(list, []byte(s), since); err != nil {
				return nil, r.wrap(doing, err)
			}
		}
	}
	return list, nil
}

// appendOutage decodes an outage and appends it to a list unless it ended before a time.
func appendOutage(list []audit.Outage, text []byte, since time.Time) ([]audit.Outage, error) {
	var o audit.Outage
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	if o.Seen.Before(since) {
		return list, nil
	}
	return append(list, o), nil
}
