package redisledger

import (
	"context"
	"fmt"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// Recall returns what the ledger remembers under keys, nil for nothing, and the version
// of its memory, which grows with each Remember and begins at 0 in each generation. It
// fails with [audit.ErrLedgerReplaced] or [audit.ErrLedgerOlder].
func (r *Ledger) Recall(ctx context.Context, keys []string) (values [][]byte, version int64, err error) {
	const doing = "recalling"
	args := []any{nil, nil, time.Now().Unix()}
	for _, key := range keys {
		args = append(args, itemKey(key))
	}
	_, answer, err := r.run(ctx, doing, recallScript, r.keys("gen", "seq", "items"), args)
	if err != nil {
		return nil, 0, err
	}
	if len(answer) != 1+len(keys) {
		return nil, 0, r.wrap(doing, errAnswer)
	}
	if version, err = number(answer[0]); err != nil {
		return nil, 0, r.wrap(doing, errAnswer)
	}
	values = make([][]byte, len(keys))
	for i := range keys {
		if text, ok := answer[1+i].(string); ok {
			values[i] = []byte(text)
		}
	}
	return values, version, nil
}

// Remember stores items, all of them or none, and removes those without a value. It fails
// with [audit.ErrMemoryChanged] if the memory has another version. It keeps no more items
// than most: those that expire first are removed, and dropped is how many of them had not
// expired.
func (r *Ledger) Remember(ctx context.Context, version int64, items []audit.Item, most int) (dropped int, err error) {
	const doing = "remembering"
	if !r.pin.Begun() {
		return 0, fmt.Errorf("%s: %w", doing, ledger.ErrNotBegun)
	}
	now := time.Now()
	latest := now.Add(ledger.MemoryLife)
	args := []any{nil, nil, version, now.Unix(), most, 0}
	for i := range items {
		args = append(args, itemKey(items[i].Key), max(0, items[i].Until.Unix()), items[i].Value)
		if items[i].Until.After(latest) {
			latest = items[i].Until
		}
	}
	args[5] = int64(latest.Sub(now) / time.Second)
	_, answer, err := r.run(ctx, doing, rememberScript, r.keys("gen", "seq", "items", "items_expiry"), args)
	if err != nil {
		return 0, err
	}
	if len(answer) != 1 {
		return 0, r.wrap(doing, errAnswer)
	}
	n, _ := answer[0].(int64)
	return int(n), nil
}

// itemKey returns the field of a key, which differs from the fields that hold the memory's
// generation and version.
func itemKey(key string) string { return "=" + key }
