package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// ledger is what both forms have in common.
type ledger interface {
	Begin(ctx context.Context) (bool, error)
	Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error)
	Record(ctx context.Context, records []audit.Record) error
	Letters(ctx context.Context) iter.Seq2[audit.Letter, error]
	Letter(ctx context.Context, id string) (audit.Letter, bool, error)
	LetterCounts(ctx context.Context) (int, int, error)
	OldestLetters(ctx context.Context) (time.Time, time.Time, error)
	Marks(ctx context.Context) (audit.Marks, error)
	SetMarks(ctx context.Context, token string, marks audit.Marks) error
	Acquire(ctx context.Context) (string, error)
	Renew(ctx context.Context, token string) error
	Word(ctx context.Context, token string) (bool, error)
	LeaseLeft(ctx context.Context) (time.Duration, error)
	Release(ctx context.Context, token string) (bool, error)
	Announce(ctx context.Context, ids []string, at time.Time) error
	Announced(ctx context.Context) ([]audit.Announcement, error)
	Unannounce(ctx context.Context, ids []string) error
	Claim(ctx context.Context, key string, d time.Duration) (bool, error)
	Bind(ctx context.Context, url string, adopt bool) error
	Ping(ctx context.Context) error
	Close() error
}

var (
	_ ledger = (*Redis)(nil)
	_ ledger = (*Bolt)(nil)
)

// backend makes the ledgers of a test.
type backend struct {
	// open returns two users of one new ledger, and a function that empties it.
	open func(tb testing.TB, lease time.Duration) (a, b ledger, empty func())
}

var opened atomic.Int64

func redisBackend(o RedisOptions) backend {
	return backend{open: func(tb testing.TB, lease time.Duration) (ledger, ledger, func()) {
		tb.Helper()
		o := o
		o.Source, o.Destination, o.LeaseTTL = fmt.Sprint("kong", opened.Add(1)), "arn:aws:test", lease
		a, b := openRedis(tb, o), openRedis(tb, o)
		return a, b, func() { emptyRedis(tb, a) }
	}}
}

func boltBackend() backend {
	return backend{open: func(tb testing.TB, lease time.Duration) (ledger, ledger, func()) {
		tb.Helper()
		b, err := OpenBolt(filepath.Join(tb.TempDir(), "ledger.db"), BoltOptions{LeaseTTL: lease})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { b.Close() })
		return b, b, func() { emptyBolt(tb, b) }
	}}
}

func TestRedis(t *testing.T) {
	if redistest.Real() {
		t.Log("ledger in redis-server")
	} else {
		t.Log("ledger in miniredis")
	}
	conform(t, redisBackend(RedisOptions{Addrs: []string{redistest.Start(t).Addr}}))
}

func TestBolt(t *testing.T) { conform(t, boltBackend()) }

// conform is the suite that every ledger passes.
func conform(t *testing.T, b backend) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, b backend)
	}{
		{"begin", testBegin},
		{"record and look up", testRecord},
		{"delivered stays", testDelivered},
		{"absurd times", testAbsurd},
		{"refused records", testRefusedRecords},
		{"letters", testLetters},
		{"letters removed while read", testLettersRemoved},
		{"large letters", testLargeLetters},
		{"marks", testMarks},
		{"replaced", testReplaced},
		{"lease", testLease},
		{"lease runs out", testLeaseRunsOut},
		{"lease left", testLeaseLeft},
		{"word", testWord},
		{"no word overlooked", testNoWordOverlooked},
		{"announcements", testAnnouncements},
		{"claims", testClaims},
		{"binding", testBind},
		{"cancelled", testCancelled},
		{"concurrent records", testConcurrentRecords},
		{"model", testModel},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, b) })
	}
}

const noon = 1767614400 // 2026-01-05T12:00:00Z

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func value[T any](v T, err error) func(tb testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		must(tb, err)
		return v
	}
}

func wantErr(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Fatalf("error %v, want %v", err, want)
	}
}

func equal(tb testing.TB, got, want any) {
	tb.Helper()
	if !reflect.DeepEqual(got, want) {
		tb.Fatalf("got %v, want %v", got, want)
	}
}

func record(id string, at int64, outcome audit.Outcome) audit.Record {
	r := audit.Record{ID: id, Timestamp: at, Keep: 720 * time.Hour, Outcome: outcome}
	if outcome == audit.Dead || outcome == audit.Parked {
		r.Letter = &audit.Letter{
			Entry: audit.Entry{ID: id, Timestamp: at, Payload: `{"name":"a"}`, TTL: audit.NoTTL},
			Code:  "InvalidData", Reason: "no good", Since: time.UnixMilli(noon * 1000).UTC(), Tries: 1,
		}
	}
	return r
}

func begun(t testing.TB, b backend) (ledger, ledger, func()) {
	t.Helper()
	x, y, empty := b.open(t, time.Minute)
	value(x.Begin(bg()))(t)
	value(y.Begin(bg()))(t)
	return x, y, empty
}

func outcomes(t testing.TB, l ledger, entries ...audit.Entry) []audit.Outcome {
	t.Helper()
	return value(l.Lookup(bg(), entries))(t)
}

func testBegin(t *testing.T, b backend) {
	x, y, _ := b.open(t, time.Minute)
	must(t, x.Ping(bg()))
	if err := x.Record(bg(), []audit.Record{record("a", noon, audit.Delivered)}); err == nil {
		t.Error("recorded before Begin")
	}
	equal(t, outcomes(t, x, audit.Entry{ID: "a", Timestamp: noon}), []audit.Outcome{audit.New})
	equal(t, value(x.Begin(bg()))(t), true)
	equal(t, value(x.Begin(bg()))(t), false)
	equal(t, value(y.Begin(bg()))(t), false)
}

func testRecord(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	long := strings.Repeat("x", 100)
	records := []audit.Record{
		record("a", noon, audit.Delivered), record("b", noon, audit.Dead), record("c", noon+86400, audit.Parked),
		record("d", noon, audit.Dropped), record("e", noon-86400, audit.Own), record(long, noon, audit.Delivered),
		record("12345", noon, audit.Delivered), record("007", noon, audit.Delivered), record("", noon, audit.Delivered),
	}
	for range 2 { // the second time changes nothing
		must(t, x.Record(bg(), records))
		for _, l := range []ledger{x, y} {
			entries := []audit.Entry{{ID: "unknown", Timestamp: noon}, {ID: "a", Timestamp: noon + 86400}, {ID: "7", Timestamp: noon}}
			want := []audit.Outcome{audit.New, audit.New, audit.New}
			for i := range records {
				entries = append(entries, audit.Entry{ID: records[i].ID, Timestamp: records[i].Timestamp})
				want = append(want, records[i].Outcome)
			}
			equal(t, outcomes(t, l, entries...), want)
		}
	}
	equal(t, outcomes(t, x), []audit.Outcome{})
	must(t, x.Record(bg(), nil))
}

func testDelivered(t *testing.T, b backend) {
	x, _, _ := begun(t, b)
	all := []audit.Outcome{audit.Delivered, audit.Dead, audit.Parked, audit.Dropped, audit.Own}
	for i, first := range all {
		for j, second := range all {
			for _, together := range []bool{false, true} {
				id := fmt.Sprint("id", i, j, together)
				one, two := record(id, noon, first), record(id, noon, second)
				if together {
					must(t, x.Record(bg(), []audit.Record{one, two}))
				} else {
					must(t, x.Record(bg(), []audit.Record{one}))
					must(t, x.Record(bg(), []audit.Record{two}))
				}
				want := second
				if first == audit.Delivered {
					want = first
				}
				equal(t, outcomes(t, x, audit.Entry{ID: id, Timestamp: noon}), []audit.Outcome{want})
				letter, ok, err := x.Letter(bg(), id)
				must(t, err)
				if ok != (want == audit.Dead || want == audit.Parked) || ok && letter.Outcome != want {
					t.Fatalf("%v then %v: letter %v, %v", first, second, ok, letter.Outcome)
				}
			}
		}
	}
}

func testAbsurd(t *testing.T, b backend) {
	x, _, _ := begun(t, b)
	var entries []audit.Entry
	var records []audit.Record
	for i, at := range []int64{
		0, -1, 1, -86400, -86401, 86399, 86400, math.MaxInt64, math.MinInt64, math.MaxInt64 - 1, 253402300799, 253402300800,
		1 << 40, noon + 100*365*86400,
	} {
		for _, keep := range []time.Duration{0, -time.Hour, math.MinInt64, math.MaxInt64, time.Hour} {
			r := record(fmt.Sprint("id", i, keep), at, audit.Delivered)
			r.Keep = keep
			records = append(records, r)
			entries = append(entries, audit.Entry{ID: r.ID, Timestamp: at})
		}
	}
	must(t, x.Record(bg(), records))
	for i, got := range outcomes(t, x, entries...) {
		if got != audit.Delivered {
			t.Errorf("%s at %d: %v", entries[i].ID, entries[i].Timestamp, got)
		}
	}
	equal(t, outcomes(t, x, audit.Entry{ID: entries[0].ID, Timestamp: noon}), []audit.Outcome{audit.New})
}

func testRefusedRecords(t *testing.T, b backend) {
	x, _, _ := begun(t, b)
	bad := record("bad", noon, audit.Dead)
	bad.Letter = nil
	for _, r := range []audit.Record{bad, record("bad", noon, audit.New), record("bad", noon, 99)} {
		if err := x.Record(bg(), []audit.Record{record("good", noon, audit.Delivered), r}); err == nil {
			t.Errorf("outcome %d was recorded", r.Outcome)
		}
	}
	equal(t, outcomes(t, x, audit.Entry{ID: "good", Timestamp: noon}), []audit.Outcome{audit.New})
}

func testLetters(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	var none time.Time
	dead, parked, err := x.OldestLetters(bg())
	must(t, err)
	equal(t, []time.Time{dead, parked}, []time.Time{none, none})
	_, ok, err := x.Letter(bg(), "a")
	must(t, err)
	equal(t, ok, false)

	// 350 letters of few moments, so that many are equal in time.
	var want []string
	var records []audit.Record
	for i := range 350 {
		outcome := audit.Dead
		if i%7 == 0 {
			outcome = audit.Parked
		}
		r := record(testID(i), noon, outcome)
		r.Letter.Since = time.UnixMilli(int64(noon*1000 - i%3*1000 + 7)).UTC()
		records = append(records, r)
	}
	must(t, x.Record(bg(), records))
	must(t, x.Record(bg(), records))
	slices.SortFunc(records, func(p, q audit.Record) int {
		if p.Outcome != q.Outcome {
			return int(q.Outcome) - int(p.Outcome)
		}
		if c := p.Letter.Since.Compare(q.Letter.Since); c != 0 {
			return c
		}
		return strings.Compare(p.ID, q.ID)
	})
	for _, r := range records {
		want = append(want, r.ID)
	}
	var got []string
	for letter, err := range y.Letters(bg()) {
		must(t, err)
		got = append(got, letter.Entry.ID)
	}
	equal(t, got, want)

	letter, ok, err := y.Letter(bg(), records[0].ID)
	must(t, err)
	wantLetter := *records[0].Letter
	wantLetter.Outcome = records[0].Outcome
	if !ok || !reflect.DeepEqual(letter, wantLetter) {
		t.Fatalf("letter %v %+v, want %+v", ok, letter, wantLetter)
	}
	nDead, nParked, err := y.LetterCounts(bg())
	must(t, err)
	equal(t, []int{nDead, nParked}, []int{300, 50})
	dead, parked, err = y.OldestLetters(bg())
	must(t, err)
	if at := int64(noon*1000 - 2000 + 7); dead.UnixMilli() != at || parked.UnixMilli() != at {
		t.Errorf("oldest at %v and %v", dead, parked)
	}

	// Parked turns dead, dead is delivered: no letter stays behind in either list.
	for i := range records {
		switch records[i].Outcome {
		case audit.Parked:
			records[i].Outcome = audit.Dead
		default:
			records[i] = record(records[i].ID, noon, audit.Delivered)
		}
	}
	must(t, x.Record(bg(), records))
	nDead, nParked, err = y.LetterCounts(bg())
	must(t, err)
	equal(t, []int{nDead, nParked}, []int{50, 0})
	n := 0
	for letter, err := range y.Letters(bg()) {
		must(t, err)
		equal(t, letter.Outcome, audit.Dead)
		if n++; n == 10 {
			break
		}
	}
	equal(t, n, 10)
}

func testLettersRemoved(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	var records []audit.Record
	for i := range 450 {
		records = append(records, record(testID(i), noon, audit.Dead))
	}
	must(t, x.Record(bg(), records))
	n := 0
	for letter, err := range x.Letters(bg()) {
		must(t, err)
		must(t, y.Record(bg(), []audit.Record{record(letter.Entry.ID, noon, audit.Dropped)}))
		n++
	}
	equal(t, n, 450)
	dead, parked, err := x.LetterCounts(bg())
	must(t, err)
	equal(t, []int{dead, parked}, []int{0, 0})
}

func testLargeLetters(t *testing.T, b backend) {
	x, _, _ := begun(t, b)
	var records []audit.Record
	for i := range 4 {
		r := record(testID(i), noon, audit.Parked)
		r.Letter.Entry.Payload = strings.Repeat(fmt.Sprint(i), 3<<20)
		records = append(records, r)
	}
	must(t, x.Record(bg(), records))
	n := 0
	for letter, err := range x.Letters(bg()) {
		must(t, err)
		equal(t, len(letter.Entry.Payload), 3<<20)
		n++
	}
	equal(t, n, 4)
}

func testMarks(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	equal(t, value(x.Marks(bg()))(t), audit.Marks{})
	marks := audit.Marks{
		Cursor: noon, ReconciledThrough: 1, FullAt: 2, Completed: 4,
		Resume: &audit.Resume{Order: "none", Started: 5, Floor: 6, From: 7, Offset: "o", Newest: 8, Full: true},
	}
	wantErr(t, x.SetMarks(bg(), "", marks), audit.ErrLeaseLost)
	wantErr(t, x.SetMarks(bg(), "someone", marks), audit.ErrLeaseLost)
	token := value(x.Acquire(bg()))(t)
	must(t, x.SetMarks(bg(), token, marks))
	wantErr(t, x.SetMarks(bg(), token+"x", audit.Marks{}), audit.ErrLeaseLost)
	equal(t, value(y.Marks(bg()))(t), marks)
	equal(t, value(x.Release(bg(), token))(t), false)
	wantErr(t, x.SetMarks(bg(), token, audit.Marks{}), audit.ErrLeaseLost)
	equal(t, value(y.Marks(bg()))(t), marks)
}

func testReplaced(t *testing.T, b backend) {
	x, y, empty := begun(t, b)
	must(t, x.Record(bg(), []audit.Record{record("a", noon, audit.Delivered)}))
	token := value(x.Acquire(bg()))(t)
	empty()
	check := func() {
		t.Helper()
		wantErr(t, x.Record(bg(), []audit.Record{record("b", noon, audit.Dead)}), audit.ErrLedgerReplaced)
		wantErr(t, x.SetMarks(bg(), token, audit.Marks{Cursor: 1}), audit.ErrLedgerReplaced)
		_, err := x.Lookup(bg(), []audit.Entry{{ID: "a", Timestamp: noon}})
		wantErr(t, err, audit.ErrLedgerReplaced)
		_, err = x.Marks(bg())
		wantErr(t, err, audit.ErrLedgerReplaced)
	}
	check()
	if x != y { // two values: another relay has made the ledger anew
		equal(t, value(y.Begin(bg()))(t), true)
		check()
		equal(t, value(x.Begin(bg()))(t), false)
	} else {
		equal(t, value(x.Begin(bg()))(t), true)
	}
	equal(t, outcomes(t, x, audit.Entry{ID: "a", Timestamp: noon}, audit.Entry{ID: "b", Timestamp: noon}),
		[]audit.Outcome{audit.New, audit.New})
	equal(t, value(x.Marks(bg()))(t), audit.Marks{})
	_, ok, err := x.Letter(bg(), "b")
	must(t, err)
	equal(t, ok, false)
}

func testLease(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	token := value(x.Acquire(bg()))(t)
	_, err := y.Acquire(bg())
	wantErr(t, err, audit.ErrLeaseHeld)
	must(t, x.Renew(bg(), token))
	wantErr(t, y.Renew(bg(), "other"), audit.ErrLeaseLost)
	_, err = y.Word(bg(), "other")
	wantErr(t, err, audit.ErrLeaseLost)
	_, err = y.Release(bg(), "other")
	wantErr(t, err, audit.ErrLeaseLost)
	equal(t, value(x.Release(bg(), token))(t), true)
	equal(t, value(x.Release(bg(), token))(t), false)
	_, err = x.Release(bg(), token)
	wantErr(t, err, audit.ErrLeaseLost)
	next := value(y.Acquire(bg()))(t)
	if next == token {
		t.Error("the same token twice")
	}
	wantErr(t, x.Renew(bg(), token), audit.ErrLeaseLost)
	equal(t, value(y.Release(bg(), next))(t), false)
}

func testLeaseRunsOut(t *testing.T, b backend) {
	x, y, _ := b.open(t, 150*time.Millisecond)
	value(x.Begin(bg()))(t)
	value(y.Begin(bg()))(t)
	start := time.Now()
	token := value(x.Acquire(bg()))(t)
	var next string
	eventually(t, func() (err error) {
		next, err = y.Acquire(bg())
		return err
	})
	if took := time.Since(start); took < 140*time.Millisecond {
		t.Errorf("lease of 150 ms ended after %v", took)
	}
	wantErr(t, x.Renew(bg(), token), audit.ErrLeaseLost)
	wantErr(t, x.SetMarks(bg(), token, audit.Marks{Cursor: 1}), audit.ErrLeaseLost)
	_, err := x.Release(bg(), token)
	wantErr(t, err, audit.ErrLeaseLost)
	if next == "" {
		t.Error("no token")
	}
}

func testLeaseLeft(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	equal(t, value(y.LeaseLeft(bg()))(t), time.Duration(0))
	token := value(x.Acquire(bg()))(t)
	if left := value(y.LeaseLeft(bg()))(t); left <= 0 || left > time.Minute {
		t.Errorf("%v are left of a lease of a minute", left)
	}
	equal(t, value(x.Word(bg(), token))(t), false) // a look is no word
	equal(t, value(x.Release(bg(), token))(t), false)
	equal(t, value(y.LeaseLeft(bg()))(t), time.Duration(0))
}

func testWord(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	token := value(x.Acquire(bg()))(t)
	equal(t, value(x.Word(bg(), token))(t), false)
	for range 3 {
		_, err := y.Acquire(bg())
		wantErr(t, err, audit.ErrLeaseHeld)
	}
	equal(t, value(x.Word(bg(), token))(t), true)
	equal(t, value(x.Word(bg(), token))(t), false)
	_, err := y.Acquire(bg())
	wantErr(t, err, audit.ErrLeaseHeld)
	equal(t, value(x.Release(bg(), token))(t), true)
	equal(t, value(x.Word(bg(), token))(t), false)
	must(t, x.Renew(bg(), token))
	equal(t, value(x.Release(bg(), token))(t), false)
	// Word that was left for a pass that has ended is none for the next one.
	next := value(y.Acquire(bg()))(t)
	equal(t, value(y.Word(bg(), next))(t), false)
	equal(t, value(y.Release(bg(), next))(t), false)
}

// testNoWordOverlooked has many users who each want a pass to begin after they
// asked. In the end the last wish has been served, whoever served it.
func testNoWordOverlooked(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	var wished, served, passes atomic.Int64
	var wg sync.WaitGroup
	user := func(l ledger, look bool) {
		for range 60 {
			wish := wished.Add(1)
			token, err := l.Acquire(bg())
			if errors.Is(err, audit.ErrLeaseHeld) {
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			for again := true; again; {
				now := wished.Load() // a pass that begins here sees all wishes up to now
				if now < wish {
					t.Errorf("pass before its wish")
				}
				if passes.Add(1); served.Load() < now {
					served.Store(now) // only the holder writes
				}
				runtime.Gosched()
				if look {
					if again, err = l.Word(bg(), token); err != nil {
						t.Error(err)
						return
					} else if again {
						continue
					}
				}
				if again, err = l.Release(bg(), token); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}
	for i := range 6 {
		l := x
		if i%2 == 1 {
			l = y
		}
		wg.Go(func() { user(l, i%3 == 0) })
	}
	wg.Wait()
	if served.Load() != wished.Load() {
		t.Errorf("wishes up to %d were served, of %d", served.Load(), wished.Load())
	}
	t.Logf("%d wishes, %d passes", wished.Load(), passes.Load())
}

func testAnnouncements(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	now := time.Now().Truncate(time.Millisecond)
	list := func() (ids []string) {
		t.Helper()
		for _, a := range value(y.Announced(bg()))(t) {
			ids = append(ids, a.ID)
		}
		return ids
	}
	must(t, x.Announce(bg(), nil, now))
	must(t, x.Unannounce(bg(), nil))
	must(t, x.Announce(bg(), []string{"b", "a"}, now.Add(-time.Minute)))
	must(t, x.Announce(bg(), []string{"a", "c"}, now))
	got := value(y.Announced(bg()))(t)
	equal(t, list(), []string{"a", "b", "c"})
	if !got[0].At.Equal(now.Add(-time.Minute)) || !got[2].At.Equal(now) {
		t.Errorf("times %v", got)
	}
	must(t, y.Unannounce(bg(), []string{"a", "unknown"}))
	equal(t, list(), []string{"b", "c"})
	must(t, x.Announce(bg(), []string{"old"}, now.Add(-24*time.Hour-time.Second)))
	equal(t, list(), []string{"b", "c"})
	must(t, x.Announce(bg(), []string{"old"}, now.Add(time.Millisecond)))
	equal(t, list(), []string{"b", "c", "old"})

	var many []string
	for i := range maxAnnounced {
		many = append(many, fmt.Sprintf("m%05d", i))
		if len(many) == 2000 {
			must(t, x.Announce(bg(), many, now.Add(time.Second)))
			many = nil
		}
	}
	ids := list()
	if len(ids) != maxAnnounced || ids[0] != "m00000" {
		t.Errorf("%d announcements from %s", len(ids), ids[0])
	}
}

func testClaims(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	long := strings.Repeat("msg_", 50)
	for _, key := range []string{"msg_1", "msg_2", long, ""} {
		equal(t, value(x.Claim(bg(), key, time.Minute))(t), true)
		equal(t, value(y.Claim(bg(), key, time.Minute))(t), false)
	}
	equal(t, value(x.Claim(bg(), "short", 20*time.Millisecond))(t), true)
	eventually(t, func() error {
		fresh, err := y.Claim(bg(), "short", 20*time.Millisecond)
		if err == nil && !fresh {
			err = errors.New("still claimed")
		}
		return err
	})
	value(x.Claim(bg(), "no time", 0))(t)
}

func testBind(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	must(t, x.Bind(bg(), "https://user:hunter2@Kong:8444/", false))
	must(t, y.Bind(bg(), "https://kong:8444", false))
	err := y.Bind(bg(), "https://other:8444", false)
	wantErr(t, err, audit.ErrForeignLedger)
	if s := err.Error(); strings.Contains(s, "hunter2") || !strings.Contains(s, "https://kong:8444") {
		t.Errorf("message %q", s)
	}
	must(t, x.Bind(bg(), "https://kong:8444", false))
	must(t, y.Bind(bg(), "https://other:8444", true))
	wantErr(t, x.Bind(bg(), "https://kong:8444", false), audit.ErrForeignLedger)
}

func testCancelled(t *testing.T, b backend) {
	x, _, _ := begun(t, b)
	ctx, cancel := context.WithCancel(bg())
	cancel()
	_, err := x.Lookup(ctx, []audit.Entry{{ID: "a"}})
	wantErr(t, err, context.Canceled)
	wantErr(t, x.Record(ctx, []audit.Record{record("a", 0, audit.Delivered)}), context.Canceled)
	_, err = x.Acquire(ctx)
	wantErr(t, err, context.Canceled)
	for _, err := range x.Letters(ctx) {
		wantErr(t, err, context.Canceled)
	}
}

func testConcurrentRecords(t *testing.T, b backend) {
	x, y, _ := begun(t, b)
	var wg sync.WaitGroup
	const users, each, batch = 4, 5, 200
	for u := range users {
		l := x
		if u%2 == 1 {
			l = y
		}
		wg.Go(func() {
			for k := range each {
				var records []audit.Record
				for i := range batch {
					n := (u/2*each+k)*batch + i // two users record the same
					records = append(records, record(testID(n), noon, audit.Delivered))
				}
				if err := l.Record(bg(), records); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var entries []audit.Entry
	for n := range users / 2 * each * batch {
		entries = append(entries, audit.Entry{ID: testID(n), Timestamp: noon})
	}
	for i, got := range outcomes(t, x, entries...) {
		if got != audit.Delivered {
			t.Fatalf("%s: %v", entries[i].ID, got)
		}
	}
}

// testModel compares with a ledger that is two maps.
func testModel(t *testing.T, b backend) {
	x, y, empty := begun(t, b)
	checks := 0
	rapid.Check(t, func(rt *rapid.T) {
		if checks++; checks > 25 { // each costs real writes
			return
		}
		empty()
		value(x.Begin(bg()))(t)
		value(y.Begin(bg()))(t)
		type place struct {
			day int64
			id  string
		}
		known, letters := map[place]audit.Outcome{}, map[string]audit.Letter{}
		ids := rapid.IntRange(0, 900)
		steps := rapid.IntRange(1, 8).Draw(rt, "steps")
		for range steps {
			l := []ledger{x, y}[rapid.IntRange(0, 1).Draw(rt, "user")]
			first, n := ids.Draw(rt, "first"), rapid.IntRange(0, 700).Draw(rt, "n")
			outcome := audit.Outcome(rapid.IntRange(1, 5).Draw(rt, "outcome"))
			mixed := rapid.Bool().Draw(rt, "mixed")
			if outcome == audit.Dead || outcome == audit.Parked {
				n = min(n, 40)
			}
			var records []audit.Record
			for i := first; i < first+n; i++ {
				o := outcome
				if mixed && i%5 == 0 {
					o = audit.Delivered
				}
				// An id always has the same timestamp, as Kong's rows do.
				r := record(testID(i), noon+int64(i%2)*86400, o)
				records = append(records, r)
				p := place{dayOf(r.Timestamp), r.ID}
				if known[p] == audit.Delivered {
					continue
				}
				known[p] = o
				delete(letters, r.ID)
				if r.Letter != nil && (o == audit.Dead || o == audit.Parked) {
					letter := *r.Letter
					letter.Outcome = o
					letters[r.ID] = letter
				}
			}
			must(t, l.Record(bg(), records))
		}
		var entries []audit.Entry
		var want []audit.Outcome
		for i := range 1700 {
			e := audit.Entry{ID: testID(i), Timestamp: noon + int64(i%2)*86400}
			entries, want = append(entries, e), append(want, known[place{dayOf(e.Timestamp), e.ID}])
		}
		if got := outcomes(t, y, entries...); !slices.Equal(got, want) {
			rt.Fatalf("outcomes differ")
		}
		got := map[string]audit.Letter{}
		for letter, err := range x.Letters(bg()) {
			must(t, err)
			if _, twice := got[letter.Entry.ID]; twice {
				rt.Fatalf("letter %s twice", letter.Entry.ID)
			}
			got[letter.Entry.ID] = letter
		}
		if !reflect.DeepEqual(got, letters) {
			rt.Fatalf("%d letters, want %d, or they differ", len(got), len(letters))
		}
		if dead, parked, err := x.LetterCounts(bg()); err != nil || dead+parked != len(letters) {
			rt.Fatalf("counts %d and %d, %v, of %d letters", dead, parked, err, len(letters))
		}
	})
}
