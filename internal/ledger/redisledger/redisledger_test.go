package redisledger

import (
	"errors"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
	"github.com/kong-cloudtrail/relay/internal/ledger/ledgertest"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

func TestRedis(t *testing.T) {
	t.Parallel()
	if redistest.Real() {
		t.Log("ledger in redis-server")
	} else {
		t.Log("ledger in miniredis")
	}
	ledgertest.Conform(t, redisBackend(redisconn.Options{Addrs: []string{redistest.Start(t).Addr}}))
}

// TestMiniredis keeps the stand-in usable for who has no redis-server.
func TestMiniredis(t *testing.T) {
	t.Parallel()
	ledgertest.Conform(t, redisBackend(redisconn.Options{Addrs: []string{redistest.StartMini(t).Addr}}))
}

// TestRedisBuckets checks what no method shows: that every bucket is packed and
// expires, and when.
func TestRedisBuckets(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	r := openRedis(t, redisconn.Options{Addrs: []string{redistest.Start(t).Addr}})
	must(t, r.Begin(bg()))
	const day = 24 * time.Hour
	begin := time.Now()
	left := map[string]time.Duration{} // id → what its bucket must live at least
	days := map[string]string{}
	put := func(from, n int, at int64, keep time.Duration) {
		t.Helper()
		var records []audit.Record
		for i := from; i < from+n; i++ {
			rec := ledgertest.Record(ledgertest.ID(i), at, audit.Delivered)
			if i%50 == 0 {
				rec = ledgertest.Record(ledgertest.ID(i), at, audit.Dead)
			}
			rec.Retention = keep
			records = append(records, rec)
			left[rec.ID], days[rec.ID] = max(left[rec.ID], keep+day, 26*time.Hour), ledger.DayName(ledger.DayOf(at))
		}
		must(t, r.Record(bg(), records))
	}
	put(0, 100, noon, 30*day)
	put(0, 100, noon, time.Hour)      // must not shorten
	put(100, 50, noon, time.Minute)   // nor these
	put(150, 3000, noon, 2*time.Hour) // splits
	put(4000, 5000, noon+86400, 10*day)
	put(9000, 1500, noon+86400, 20*day)
	put(11000, 10, 0, 0)
	put(12000, 10, -1, -time.Hour)
	put(13000, 10, 1<<60, day)
	lease := value(r.Acquire(bg(), true))(t)
	must(t, lease.SetMarks(bg(), audit.Marks{Cursor: 1}))
	value(r.ReserveNonce(bg(), "nonce", time.Hour))(t)
	must(t, r.BindKong(bg(), "http://kong:8001", false))
	must(t, r.BindAccount(bg(), "111111111111", false))
	must(t, r.Announce(bg(), []string{"x"}, time.Now()))
	if _, err := r.Acquire(bg(), true); !errors.Is(err, audit.ErrLeaseHeld) {
		t.Fatal(err)
	}

	lasting := map[string]bool{"gen": true, "seq": true, "marks": true, "kong": true, "account": true, "undelivered": true, "dead": true, "deferred": true, "reruns": true}
	found, buckets := 0, 0
	for _, key := range ledgerKeys(t, r) {
		name := strings.TrimPrefix(key, r.prefix)
		ttl := value(r.client.TTL(bg(), key).Result())(t)
		if (ttl < 0) != lasting[name] {
			t.Errorf("%s: time to live %v", name, ttl)
		}
		date, node, isBucket := strings.Cut(name, ":")
		if !isBucket || date == "nonce" {
			continue
		}
		buckets++
		fields := value(r.client.HGetAll(bg(), key).Result())(t)
		if len(fields) > 192 {
			t.Errorf("%s has %d fields", name, len(fields))
		}
		if e := value(r.client.ObjectEncoding(bg(), key).Result())(t); e != "listpack" && e != "ziplist" {
			t.Errorf("%s is a %s", name, e)
		}
		if node != "1" {
			if dir := value(r.client.TTL(bg(), r.prefix+date).Result())(t); dir < ttl {
				t.Errorf("bitmap of %s expires after %v, node %s after %v", date, dir, node, ttl)
			}
		}
		for id := range fields {
			found++
			if days[id] != date {
				t.Errorf("%s in %s, not in %s", id, name, days[id])
			}
			if ttl < left[id]-time.Since(begin)-time.Second {
				t.Errorf("%s: %s lives %v, must %v", name, id, ttl, left[id])
			}
		}
	}
	if found != len(left) {
		t.Errorf("%d ids in buckets, recorded %d", found, len(left))
	}
	t.Logf("%d ids in %d buckets", found, buckets)
	entries, err := r.client.HLen(bg(), r.prefix+"undelivered").Result()
	must(t, err)
	if entries == 0 {
		t.Error("no undelivered entries")
	}
}

// TestRedisSplitsInSteps fills the buckets of a day nearly, and then all of them
// at once: that is more than one call may move.
func TestRedisSplitsInSteps(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t)
	r := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}})
	must(t, r.Begin(bg()))
	plain := plainClient(t, s)
	calls := func() (n int) {
		t.Helper()
		info := value(plain.Info(bg(), "commandstats").Result())(t)
		for line := range strings.Lines(info) {
			if v, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
				v, _, _ = strings.Cut(v, ",")
				n = value(strconv.Atoi(v))(t)
			}
		}
		return n
	}
	var entries []audit.Entry
	var want []audit.Outcome
	steps, n := 0, 0
	for n < 12_000 {
		var records []audit.Record
		for range 500 {
			outcome := audit.Delivered
			if n%100 == 0 {
				outcome = audit.Dead
			}
			records = append(records, ledgertest.Record(ledgertest.ID(n), noon, outcome))
			entries, want = append(entries, audit.Entry{ID: ledgertest.ID(n), Timestamp: noon}), append(want, outcome)
			n++
		}
		before := calls()
		must(t, r.Record(bg(), records))
		steps = max(steps, calls()-before)
	}
	equal(t, outcomes(t, r, entries...), want)
	equal(t, value(r.UndeliveredCounts(bg()))(t).Dead, n/100)
	if steps < 2 {
		t.Errorf("no call left anything over")
	}
	t.Logf("at most %d calls for 500 records", steps)
}

// TestRedisExpires sees a bucket go.
func TestRedisExpires(t *testing.T) {
	t.Parallel()
	s := redistest.StartMini(t)
	r := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}})
	must(t, r.Begin(bg()))
	rec := ledgertest.Record("a", noon, audit.Dead)
	rec.Retention = 0
	must(t, r.Record(bg(), []audit.Record{rec}))
	s.Forward(25*time.Hour + 59*time.Minute)
	equal(t, outcomes(t, r, audit.Entry{ID: "a", Timestamp: noon}), []audit.Outcome{audit.Dead})
	s.Forward(2 * time.Minute)
	equal(t, outcomes(t, r, audit.Entry{ID: "a", Timestamp: noon}), []audit.Outcome{audit.NoOutcome})
	_, ok, err := r.UndeliveredEntry(bg(), "a")
	must(t, err)
	equal(t, ok, true)
}

func TestNamesOfALedger(t *testing.T) {
	t.Parallel()
	if r := openRedis(t, redisconn.Options{Addrs: []string{"a", "b:1"}, SentinelMaster: "main"}); r.client.Where != "a:26379,b:1" {
		t.Errorf("Sentinels at %q", r.client.Where)
	}
	r := openNamed(t, redisconn.Options{Addrs: []string{"a", "b:1"}}, Options{Prefix: "x{y}", Source: "k}1", Destination: "d{"})
	if r.client.Where != "a:6379,b:1" || r.prefix != "x%7By%7D:{k%7D1>d%7B}:" {
		t.Errorf("where %q, prefix %q", r.client.Where, r.prefix)
	}
}

// What is broken in a list hides no other.
func TestRedisBrokenListItems(t *testing.T) {
	t.Parallel()
	r := openRedis(t, redisconn.Options{Addrs: []string{redistest.Start(t).Addr}})
	must(t, r.Begin(bg()))
	now := time.UnixMilli(time.Now().UnixMilli()).UTC()
	var records []audit.Record
	for i, id := range []string{"a", "b", "c"} {
		at := now.Add(time.Duration(i) * time.Minute)
		must(t, r.PutOutage(bg(), audit.Outage{ID: id, Dependency: "kong", From: at, Seen: at}))
		e := audit.Entry{ID: id, Timestamp: now.Unix()}
		records = append(records, audit.Record{ID: id, Timestamp: e.Timestamp, Retention: time.Hour, Outcome: audit.Dead, Undelivered: &audit.Undelivered{Entry: e, Since: now}})
	}
	must(t, r.Record(bg(), records))
	for _, text := range []string{`{"id":"b","from":`, `null`, `{}`, ``} {
		must(t, r.client.HSet(bg(), r.prefix+"outage", "b", text).Err())
		list, err := r.Outages(bg(), now.Add(-time.Minute))
		if err != nil || len(list) != 3 || list[0].ID != "a" || list[2].ID != "c" {
			t.Fatalf("%s: %+v: %v", text, list, err)
		}
		if o := list[1]; o.ID != "b" || o.Dependency != audit.UnknownDependency || !o.From.Equal(now.Add(time.Minute)) || o.Lasts(now) || !strings.Contains(o.Cause, "broken") {
			t.Errorf("%s: %+v", text, o)
		}

		must(t, r.client.HSet(bg(), r.prefix+"undelivered", "b", text).Err())
		read := map[string]bool{} // whether it is readable
		for u, err := range r.UndeliveredEntries(bg()) {
			if err != nil && !audit.IsUnreadable(err) || u.Outcome != audit.Dead || !u.Since.Equal(now) {
				t.Errorf("%s: %+v: %v", text, u, err)
			}
			read[u.Entry.ID] = err == nil
		}
		if want := map[string]bool{"a": true, "b": false, "c": true}; !maps.Equal(read, want) {
			t.Errorf("%s: got %v, want %v", text, read, want)
		}
		if u, found, err := r.UndeliveredEntry(bg(), "b"); !found || u.Entry.ID != "b" || !audit.IsUnreadable(err) {
			t.Errorf("%s: %+v, %t, %v", text, u, found, err)
		}
	}
	must(t, r.Record(bg(), []audit.Record{{ID: "b", Outcome: audit.Dropped}}))
	if c, err := r.UndeliveredCounts(bg()); err != nil || c.Dead != 2 {
		t.Errorf("%+v: %v", c, err)
	}
}
