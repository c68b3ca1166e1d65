package redisledger

import (
	_ "embed"
	"math/bits"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
	"github.com/kong-cloudtrail/relay/internal/ledger/ledgertest"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// splitHalvesSource is the script of the releases that split a full bucket in two.
//
//go:embed testdata/split_halves.lua
var splitHalvesSource string

var splitHalvesScript = redis.NewScript(source("guard") + splitHalvesSource)

// halving records as the releases did that split a full bucket in two.
type halving struct {
	*Ledger
	splits int
}

func (h *halving) record(t *testing.T, records []audit.Record) {
	t.Helper()
	lines := make([]line, len(records))
	ids := make([]place, len(records))
	for i, rec := range records {
		ids[i] = place{rec.ID, ledger.DayOf(rec.Timestamp)}
		lines[i] = line{place: ids[i], outcome: "1", seconds: 1 << 20}
	}
	for range layoutTries {
		p := h.newPlan(ids)
		keys := p.keys(h.Ledger, h.keys("gen", "seq", "undelivered", "dead", "deferred"))
		word, answer, err := h.run(bg(), "recording", recordScript, keys, recordArgs(&p, lines))
		must(t, err)
		if word == changedLayout {
			h.learn(p.days, answer)
			continue
		}
		if len(answer) == 0 {
			return
		}
		for _, n := range answer {
			h.split(t, p.days[0], p.buckets[n.(int64)].node())
		}
	}
	t.Fatal("buckets were split again and again")
}

func (h *halving) split(t *testing.T, day string, node uint32) {
	t.Helper()
	keys := append(h.keys("gen", "seq"), h.prefix+day, h.bucketKey(day, node), h.bucketKey(day, 2*node), h.bucketKey(day, 2*node+1))
	_, answer, err := h.run(bg(), "splitting", splitHalvesScript, keys, []any{nil, nil, h.layouts.of(day), node, depthOf(node)})
	must(t, err)
	h.learn([]string{day}, answer)
	h.splits++
}

// TestRedisLayoutOfHalves records the ids of one day by a relay of a release that split a
// full bucket in two, whose buckets lie at odd depths as well, and by one of this release,
// in turns, as while one replaces the other: each goes on with the layout of the other,
// and both find all ids.
func TestRedisLayoutOfHalves(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t)
	before := &halving{Ledger: openRedis(t, redisconn.Options{Addrs: []string{s.Addr}})}
	now := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}})
	must(t, before.Begin(bg()))
	must(t, now.Begin(bg()))
	day := ledger.DayName(ledger.DayOf(noon))

	var entries []audit.Entry
	var want []audit.Outcome
	next := func(n int) (records []audit.Record) {
		for range n {
			id := ledgertest.ID(len(entries))
			records = append(records, ledgertest.Record(id, noon, audit.Delivered))
			entries, want = append(entries, audit.Entry{ID: id, Timestamp: noon}), append(want, audit.Delivered)
		}
		return records
	}
	both := func() {
		t.Helper()
		equal(t, outcomes(t, before, entries...), want)
		equal(t, outcomes(t, now, entries...), want)
	}
	splitsOf := func() (n int) { // nodes that are split
		t.Helper()
		for _, b := range []byte(value(now.client.Get(bg(), now.prefix+day).Result())(t)) {
			n += bits.OnesCount8(b)
		}
		return n
	}

	before.record(t, next(300)) // two halves, at depth 1
	equal(t, splitsOf(), 1)
	both()
	must(t, now.Record(bg(), next(300))) // each into four, at depth 3
	equal(t, splitsOf(), 1+2*3)
	both()
	for range 10 {
		before.record(t, next(250))
		both()
		must(t, now.Record(bg(), next(250)))
		both()
	}
	if all := splitsOf(); before.splits < 5 || all-before.splits < 9 {
		t.Errorf("%d splits, %d of them by the release before", all, before.splits)
	}

	found := 0
	for _, key := range ledgerKeys(t, now) {
		if strings.Contains(key, day+":") {
			n := int(value(now.client.HLen(bg(), key).Result())(t))
			if n > maxFields {
				t.Errorf("%s has %d fields", key, n)
			}
			found += n
		}
	}
	equal(t, found, len(entries)) // each id is in one bucket
}
