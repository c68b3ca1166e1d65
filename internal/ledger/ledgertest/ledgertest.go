// Package ledgertest is the suite that every form of a ledger passes.
package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
)

// Ledger is what both forms have in common.
type Ledger interface {
	Begin(ctx context.Context) error
	Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error)
	Record(ctx context.Context, records []audit.Record) error
	UndeliveredEntries(ctx context.Context) iter.Seq2[audit.Undelivered, error]
	UndeliveredEntry(ctx context.Context, id string) (audit.Undelivered, bool, error)
	HasUndelivered(ctx context.Context, ids []string) ([]bool, error)
	UndeliveredCounts(ctx context.Context) (audit.UndeliveredCounts, error)
	Marks(ctx context.Context) (audit.Marks, error)
	Acquire(ctx context.Context, requestRerun bool) (ledger.Lease, error)
	LeaseLeft(ctx context.Context) (time.Duration, error)
	Announce(ctx context.Context, ids []string, at time.Time) error
	Announced(ctx context.Context) ([]audit.Announcement, error)
	Unannounce(ctx context.Context, ids []string) error
	NoteOwnReads(ctx context.Context, ids []string) error
	AreOwnReads(ctx context.Context, ids []string) ([]bool, error)
	ReserveNonce(ctx context.Context, nonce string, d time.Duration) (bool, error)
	PutOutage(ctx context.Context, o audit.Outage) error
	Outages(ctx context.Context, since time.Time) ([]audit.Outage, error)
	Recall(ctx context.Context, keys []string) ([][]byte, int64, error)
	Remember(ctx context.Context, version int64, items []audit.Item, most int) (int, error)
	BindKong(ctx context.Context, url string, adopt bool) error
	BindAccount(ctx context.Context, account string, adopt bool) error
	Ping(ctx context.Context) error
	Close() error
}

// Backend makes the ledgers of a test.
type Backend struct {
	// Open returns two users of one new ledger, and a function that empties it.
	Open func(tb testing.TB, lease time.Duration) (a, b Ledger, empty func())
	// Forget takes back the last writes that the sequence counts, as a ledger does
	// that comes from a snapshot.
	Forget func(tb testing.TB, l Ledger, writes int)
}

// Conform is the suite that every ledger passes.
func Conform(t *testing.T, b Backend) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, b Backend)
	}{
		{"begin", testBegin},
		{"record and look up", testRecord},
		{"delivered stays", testDelivered},
		{"absurd times", testAbsurd},
		{"refused records", testRefusedRecords},
		{"undelivered", testUndelivered},
		{"undelivered entries removed while read", testUndeliveredRemoved},
		{"large undelivered entries", testLargeUndelivered},
		{"marks", testMarks},
		{"replaced", testReplaced},
		{"older", testOlder},
		{"marks ahead of the ids", testMarksAhead},
		{"lease", testLease},
		{"lease runs out", testLeaseRunsOut},
		{"lease left", testLeaseLeft},
		{"reruns", testRerun},
		{"no rerun request overlooked", testNoRerunOverlooked},
		{"announcements", testAnnouncements},
		{"own reads", testOwnReads},
		{"nonces", testNonces},
		{"outages", testOutages},
		{"memory", testMemory},
		{"binding", testBind},
		{"cancelled", testCancelled},
		{"concurrent records", testConcurrentRecords},
		{"model", testModel},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, b) })
	}
}

// Noon is the Unix second of 2026-01-05T12:00:00Z.
const Noon = 1767614400

// Record returns a record of an outcome, with its entry if it is undelivered.
func Record(id string, at int64, outcome audit.Outcome) audit.Record {
	r := audit.Record{ID: id, Timestamp: at, Retention: 720 * time.Hour, Outcome: outcome}
	if outcome == audit.Dead || outcome == audit.Deferred {
		r.Undelivered = &audit.Undelivered{
			Entry: audit.Entry{ID: id, Timestamp: at, Payload: `{"name":"a"}`, TTL: audit.NoTTL},
			Code:  "InvalidData", Reason: "no good", Since: time.UnixMilli(Noon * 1000).UTC(), Tries: 1,
		}
	}
	return r
}

// records returns so many records of one outcome, of Noon.
func records(n int, outcome audit.Outcome) []audit.Record {
	list := make([]audit.Record, n)
	for i := range list {
		list[i] = Record(ID(i), Noon, outcome)
	}
	return list
}

func begun(t testing.TB, b Backend) (Ledger, Ledger, func()) {
	t.Helper()
	x, y, empty := b.Open(t, time.Minute)
	Must(t, x.Begin(bg()))
	Must(t, y.Begin(bg()))
	return x, y, empty
}

func testBegin(t *testing.T, b Backend) {
	x, y, _ := b.Open(t, time.Minute)
	Must(t, x.Ping(bg()))
	one := records(1, audit.Delivered)
	WantErr(t, x.Record(bg(), one), ledger.ErrNotBegun)
	wantOutcomes(t, x, one, audit.NoOutcome)
	Must(t, x.Begin(bg()))
	Must(t, x.Begin(bg()))
	Must(t, y.Begin(bg()))
}

func testReplaced(t *testing.T, b Backend) {
	x, y, empty := begun(t, b)
	a, other := Record("a", Noon, audit.Delivered), Record("b", Noon, audit.Dead)
	Must(t, x.Record(bg(), []audit.Record{a}))
	lease := Value(x.Acquire(bg(), true))(t)
	empty()
	wantForgot(t, x, lease, audit.ErrLedgerReplaced)
	if x != y { // two values: another relay has made the ledger anew
		Must(t, y.Begin(bg()))
		wantForgot(t, x, lease, audit.ErrLedgerReplaced)
	}
	Must(t, x.Begin(bg()))
	wantOutcomes(t, x, []audit.Record{a, other}, audit.NoOutcome, audit.NoOutcome)
	Equal(t, Value(x.Marks(bg()))(t), audit.Marks{})
	wantCounts(t, x, 0, 0)
}

func testAnnouncements(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	now := time.Now().Truncate(time.Millisecond)
	list := func() (ids []string) {
		t.Helper()
		for _, a := range Value(y.Announced(bg()))(t) {
			ids = append(ids, a.ID)
		}
		return ids
	}
	Must(t, x.Announce(bg(), nil, now))
	Must(t, x.Unannounce(bg(), nil))
	Must(t, x.Announce(bg(), []string{"b", "a"}, now.Add(-time.Minute)))
	Must(t, x.Announce(bg(), []string{"a", "c"}, now))
	got := Value(y.Announced(bg()))(t)
	Equal(t, list(), []string{"a", "b", "c"})
	if !got[0].At.Equal(now.Add(-time.Minute)) || !got[2].At.Equal(now) {
		t.Errorf("times %v", got)
	}
	Must(t, y.Unannounce(bg(), []string{"a", "unknown"}))
	Equal(t, list(), []string{"b", "c"})
	Must(t, x.Announce(bg(), []string{"old"}, now.Add(-24*time.Hour-time.Second)))
	Equal(t, list(), []string{"b", "c"})
	Must(t, x.Announce(bg(), []string{"old"}, now.Add(time.Millisecond)))
	Equal(t, list(), []string{"b", "c", "old"})

	var many []string
	for i := range ledger.MaxListed {
		many = append(many, fmt.Sprintf("m%05d", i))
	}
	for part := range slices.Chunk(many, 2000) {
		Must(t, x.Announce(bg(), part, now.Add(time.Second)))
	}
	ids := list()
	if len(ids) != ledger.MaxListed || ids[0] != "m00000" {
		t.Errorf("%d announcements from %s", len(ids), ids[0])
	}
}

func testOwnReads(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	Must(t, x.NoteOwnReads(bg(), nil))
	Equal(t, len(Value(x.AreOwnReads(bg(), nil))(t)), 0)
	Equal(t, Value(y.AreOwnReads(bg(), []string{"a"}))(t), []bool{false})
	long := strings.Repeat("x", 100)
	Must(t, x.NoteOwnReads(bg(), []string{"a", "b", long}))
	Must(t, y.NoteOwnReads(bg(), []string{"b", "c"}))
	Equal(t, Value(y.AreOwnReads(bg(), []string{"c", "d", "a", "b", long, ""}))(t), []bool{true, false, true, true, true, false})
	Equal(t, len(Value(x.Announced(bg()))(t)), 0)

	var many []string
	for i := range ledger.MaxListed + 500 {
		many = append(many, ID(i))
	}
	for part := range slices.Chunk(many, 2000) {
		Must(t, x.NoteOwnReads(bg(), part))
	}
	own := 0
	for _, is := range Value(y.AreOwnReads(bg(), many))(t) {
		if is {
			own++
		}
	}
	if own < ledger.MaxListed-10 || own > ledger.MaxListed { // ids of one millisecond drop out by name
		t.Errorf("%d own reads are kept, want about %d", own, ledger.MaxListed)
	}
}

func testNonces(t *testing.T, b Backend) {
	x, y, _ := begun(t, b)
	long := strings.Repeat("msg_", 50)
	for _, key := range []string{"msg_1", "msg_2", long, ""} {
		Equal(t, Value(x.ReserveNonce(bg(), key, time.Minute))(t), true)
		Equal(t, Value(y.ReserveNonce(bg(), key, time.Minute))(t), false)
	}
	Equal(t, Value(x.ReserveNonce(bg(), "short", 20*time.Millisecond))(t), true)
	Eventually(t, func() error {
		fresh, err := y.ReserveNonce(bg(), "short", 20*time.Millisecond)
		if err == nil && !fresh {
			err = errors.New("still reserved")
		}
		return err
	})
	Value(x.ReserveNonce(bg(), "no time", 0))(t)
}

func testBind(t *testing.T, b Backend) {
	for _, c := range []struct {
		bind                             func(l Ledger, ctx context.Context, value string, adopt bool) error
		first, mistyped, canonical, next string
		mismatch                         error
	}{
		{Ledger.BindKong, "https://user:hunter2@Kong:8444/", "https://mistyped:8444", "https://kong:8444", "https://other:8444", audit.ErrLedgerMismatch},
		{Ledger.BindAccount, "111111111111", "333333333333", "111111111111", "222222222222", audit.ErrAccountMismatch},
	} {
		x, y, _ := begun(t, b)
		Must(t, c.bind(x, bg(), c.first, false))
		Must(t, c.bind(y, bg(), c.mistyped, false)) // nothing hangs on it yet
		Must(t, c.bind(y, bg(), c.canonical, false))
		lease := Value(x.Acquire(bg(), true))(t)
		Must(t, lease.SetMarks(bg(), audit.Marks{Cursor: 1}))
		err := c.bind(y, bg(), c.next, false)
		WantErr(t, err, c.mismatch)
		if s := err.Error(); strings.Contains(s, "hunter2") || !strings.Contains(s, c.canonical) {
			t.Errorf("message %q", s)
		}
		Must(t, c.bind(x, bg(), c.canonical, false))
		Must(t, c.bind(y, bg(), c.next, true))
		WantErr(t, c.bind(x, bg(), c.canonical, false), c.mismatch)
	}
}

func testCancelled(t *testing.T, b Backend) {
	x, _, _ := begun(t, b)
	ctx, cancel := context.WithCancel(bg())
	cancel()
	_, err := x.Lookup(ctx, []audit.Entry{{ID: "a"}})
	WantErr(t, err, context.Canceled)
	WantErr(t, x.Record(ctx, []audit.Record{Record("a", 0, audit.Delivered)}), context.Canceled)
	_, err = x.Acquire(ctx, true)
	WantErr(t, err, context.Canceled)
	for _, err := range x.UndeliveredEntries(ctx) {
		WantErr(t, err, context.Canceled)
	}
}

func bg() context.Context { return context.Background() }

// ID returns an id as Kong makes them, the same for the same number.
func ID(n int) string {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	var b strings.Builder
	x := uint64(n)*0x9E3779B97F4A7C15 + 0x1234567
	for range 32 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b.WriteByte(letters[x%62])
	}
	return b.String()
}
