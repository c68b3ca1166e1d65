package redisledger

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

//go:embed lua/recall.lua
var recallSource string

//go:embed lua/remember.lua
var rememberSource string

var (
	recallScript   = redis.NewScript(recallSource)
	rememberScript = redis.NewScript(rememberSource)
)

// Recall returns what the ledger remembers under keys, nil for nothing, and the version
// of its memory, which grows with each Remember and begins at 0 in each generation. It
// fails with [audit.ErrLedgerReplaced].
func (r *Ledger) Recall(ctx context.Context, keys []string) (values [][]byte, version int64, err error) {
	const doing = "recalling"
	generation, _ := r.pin.Get()
	args := []any{generation, r.now().Unix()}
	for _, key := range keys {
		args = append(args, itemKey(key))
	}
	answer, err := recallScript.Run(ctx, r.client, r.keys("gen", "items"), args...).Slice()
	if err != nil {
		return nil, 0, r.wrap(doing, err)
	}
	if len(answer) > 0 && answer[0] == replaced {
		return nil, 0, r.wrap(doing, audit.ErrLedgerReplaced)
	}
	values = make([][]byte, len(keys))
	for i, a := range answer {
		text, ok := a.(string)
		switch {
		case i == 0:
			if version, err = strconv.ParseInt(text, 10, 64); err != nil {
				return nil, 0, r.wrap(doing, fmt.Errorf("version %q", text))
			}
		case ok && i <= len(keys):
			values[i-1] = []byte(text)
		}
	}
	return values, version, nil
}

// Remember stores items, all of them or none, and removes those without a value. It
// fails with [audit.ErrMemoryChanged] if the memory has another version. At most so many
// items are kept: those whose time comes first go, and dropped says how many.
func (r *Ledger) Remember(ctx context.Context, version int64, items []audit.Item, most int) (dropped int, err error) {
	const doing = "remembering"
	generation, _ := r.pin.Get()
	if generation == "" {
		return 0, r.wrap(doing, ledger.ErrNotBegun)
	}
	now := r.now()
	latest := now
	args := []any{generation, version, now.Unix(), most, 0}
	for i := range items {
		args = append(args, itemKey(items[i].Key), max(0, items[i].Until.Unix()), items[i].Value)
		if items[i].Until.After(latest) {
			latest = items[i].Until
		}
	}
	args[4] = int64(max(latest.Sub(now), ledger.MemoryLife) / time.Second)
	answer, err := rememberScript.Run(ctx, r.client, r.keys("gen", "items", "items_expiry"), args...).Slice()
	switch {
	case err != nil:
		return 0, r.wrap(doing, err)
	case len(answer) > 0 && answer[0] == replaced:
		return 0, r.wrap(doing, audit.ErrLedgerReplaced)
	case len(answer) > 0 && answer[0] == "changed":
		return 0, r.wrap(doing, audit.ErrMemoryChanged)
	case len(answer) != 3:
		return 0, r.wrap(doing, fmt.Errorf("answer of %d parts", len(answer)))
	}
	n, _ := answer[2].(int64)
	return int(n), nil
}

// itemKey is the field of a key, which differs from those that say what the memory is.
func itemKey(key string) string { return "=" + key }
