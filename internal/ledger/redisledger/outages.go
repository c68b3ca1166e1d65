package redisledger

import (
	"context"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// PutOutage stores an outage. It replaces the outage that has the same id and began at the
// same time. The ledger keeps the latest 10,000 outages, each for 400 days.
func (r *Ledger) PutOutage(ctx context.Context, o audit.Outage) error {
	text, err := json.Marshal(o)
	if err != nil {
		return r.wrap("storing an outage", err)
	}
	return r.wrap("storing an outage", outageScript.Run(ctx, r.client, r.keys("outages", "outage"), o.From.UnixMilli(), o.ID, text,
		time.Now().Add(-ledger.OutageLife).UnixMilli(), ledger.MaxOutages, int64(ledger.OutageLife/time.Second)).Err())
}

// Outages returns the outages that had not ended by a time, oldest first. One whose record is broken
// is among them, with the dependency [audit.UnknownDependency].
func (r *Ledger) Outages(ctx context.Context, since time.Time) (list []audit.Outage, err error) {
	const doing = "reading outages"
	began, err := r.client.ZRangeWithScores(ctx, r.prefix+"outages", 0, -1).Result()
	if err != nil || len(began) == 0 {
		return nil, r.wrap(doing, err)
	}
	ids := make([]string, len(began))
	for i, z := range began {
		ids[i], _ = z.Member.(string) // the client makes every member a string
	}
	texts, err := r.client.HMGet(ctx, r.prefix+"outage", ids...).Result()
	if err != nil {
		return nil, r.wrap(doing, err)
	}
	for i, text := range texts {
		s, _ := text.(string) // "" if it was lost
		list = ledger.AppendOutage(list, ids[i], int64(began[i].Score), []byte(s), since)
	}
	return list, nil
}
