package objects_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
	"github.com/kong-cloudtrail/relay/internal/lease"
	"github.com/kong-cloudtrail/relay/internal/ledger/boltledger"
	"github.com/kong-cloudtrail/relay/internal/objects"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
	"github.com/kong-cloudtrail/relay/internal/runner"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

// table is one of Kong's two logs, sorted by time.
type table struct {
	mu      sync.Mutex
	rows    []audit.Entry
	waiting []insert
	down    bool
	newest  bool // newest first, without filters
	reads   int
}

// insert is a row that is still to show up.
type insert struct {
	row audit.Entry
	at  time.Time
}

func (t *table) add(row audit.Entry, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = append(t.waiting, insert{row, at})
}

func (t *table) show() {
	now := time.Now()
	t.waiting = slices.DeleteFunc(t.waiting, func(w insert) bool {
		if w.at.After(now) {
			return false
		}
		at, _ := slices.BinarySearchFunc(t.rows, w.row, compareRows)
		t.rows = slices.Insert(t.rows, at, w.row)
		return true
	})
}

func compareRows(a, b audit.Entry) int {
	return cmp.Or(cmp.Compare(a.Timestamp, b.Timestamp), strings.Compare(a.ID, b.ID))
}

func (t *table) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.down {
		return audit.Page{}, fmt.Errorf("503 Service Unavailable")
	}
	t.reads++
	t.show()
	page := audit.Page{Date: time.Now().Truncate(time.Second)}
	if t.newest {
		from, _ := strconv.Atoi(q.Offset)
		for i := len(t.rows) - 1 - from; i >= 0; i-- {
			if len(page.Entries) == q.Size {
				page.Offset = strconv.Itoa(from + q.Size)
				break
			}
			page.Entries = append(page.Entries, t.rows[i])
		}
		return page, nil
	}
	from, _ := slices.BinarySearchFunc(t.rows, audit.Entry{Timestamp: q.After}, compareRows)
	if at, ts, ok := strings.Cut(q.Offset, "@"); ok {
		n, _ := strconv.ParseInt(ts, 10, 64)
		from, _ = slices.BinarySearchFunc(t.rows, audit.Entry{Timestamp: n, ID: at + "\x00"}, compareRows)
	}
	end := min(len(t.rows), from+q.Size)
	page.Entries = slices.Clone(t.rows[from:end])
	for i := range page.Entries {
		page.Bytes += page.Entries[i].Size()
	}
	if end < len(t.rows) {
		last := &t.rows[end-1]
		page.Offset = last.ID + "@" + strconv.FormatInt(last.Timestamp, 10)
	}
	return page, nil
}

// destination takes everything.
type destination struct {
	mu     sync.Mutex
	events map[string][]put
	ledger int // number of the ledger in use
}

// put is an event, with the ledger from which it was made.
type put struct {
	audit.Entry

	ledger int
	at     time.Time
}

func (d *destination) Put(_ context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	verdicts := make([]audit.Verdict, len(entries))
	for i, e := range entries {
		verdicts[i].Status = audit.Accepted
		d.events[e.ID] = append(d.events[e.ID], put{e, d.ledger, time.Now()})
	}
	return verdicts, nil
}

// judged is a Kong that is edited, the relays that read it, and what is known of both.
type judged struct {
	t        testing.TB
	rand     *rand.Rand
	world    entities.World
	gen      *entities.Generator
	requests table
	objects  table
	dest     destination
	ledger   *boltledger.Ledger
	ledgers  int
	keys     map[int][]byte // of the digests in each ledger
	logs     bytes.Buffer
	logMu    sync.Mutex

	mu        sync.Mutex
	histories map[string]int
	late      int
	edits     map[string]audit.Entry // by request id
	lostRows  map[string]bool
	lateRows  map[string]bool
	lostReqs  map[string]bool
	purged    map[string]bool      // requests that were removed, perhaps unread
	shown     map[string]time.Time // when a request's row shows up
	made      map[string]time.Time // when a request was made
	relays    []*relay
	tells     float64         // share of requests that are announced
	clocks    []time.Duration // of the control planes, from the true time
	slow      time.Duration   // how much later than most the slowest rows come
}

func (j *judged) Write(p []byte) (int, error) {
	j.logMu.Lock()
	defer j.logMu.Unlock()
	return j.logs.Write(p)
}

type relay struct {
	stop context.CancelFunc
	done chan struct{}
	s    *announce.Scheduler
	r    *runner.Runner
}

func (j *judged) openLedger(dir string) {
	j.ledgers++
	j.dest.ledger = j.ledgers
	l, err := boltledger.Open(filepath.Join(dir, fmt.Sprintf("%d.db", j.ledgers)), boltledger.Options{Source: "kong", Destination: "test"})
	if err != nil {
		j.t.Fatal(err)
	}
	j.ledger = l
}

// start starts a relay as the daemon does.
func (j *judged) start() {
	l := j.ledger
	log := slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var r *relay
	s := announce.New(announce.Options{Debounce: 50 * time.Millisecond, Schedule: time.Hour})
	keeper := lease.NewKeeper(lease.Options{
		Acquire: l.Acquire,
		Begin:   l.Begin,
		Rerun:   func() { r.r.RequestRerun() },
		Logger:  log,
	})
	joiner := objects.New(objects.Options{
		Source: &j.objects, Ledger: l, Memory: l, Announced: l.Announced, Logger: log,
		Observer: objects.Observer{
			Changed: func(h string) { j.mu.Lock(); j.histories[h]++; j.mu.Unlock() },
			Late:    func(n int) { j.mu.Lock(); j.late += n; j.mu.Unlock() },
		},
	})
	p := pipeline.New(pipeline.Options{
		Source: &j.requests, Ledger: l, Marks: l, Undelivered: l, Destination: &j.dest, Lease: keeper, OwnReads: l, Changes: joiner, Logger: log,
		Observer: pipeline.Observer{Seen: func(e []audit.Entry) { s.Seen(time.Now(), e) }, Delivered: func(e []audit.Entry) { s.Delivered(time.Now(), e) }},
	})
	ctx, cancel := context.WithCancel(context.Background())
	r = &relay{stop: cancel, done: make(chan struct{}), s: s}
	r.r = runner.New(runner.Options{
		Passes: p, Scheduler: s, List: l, Ledger: l, OwnReads: l, Marks: l, LeaseLeft: l.LeaseLeft, Schedule: time.Hour, LeaseWait: time.Second, Logger: log,
	})
	s.RequestReconcile(time.Now(), true)
	go func() {
		defer close(r.done)
		_ = r.r.Run(ctx)
	}()
	j.relays = append(j.relays, r)
}

func (j *judged) stopAll() {
	for _, r := range j.relays {
		r.stop()
		<-r.done
	}
	j.relays = nil
}

// lateness returns how long after the edit a row is inserted.
func (j *judged) lateness() time.Duration {
	d := 300*time.Millisecond + time.Duration(j.rand.Int64N(int64(500*time.Millisecond)))
	if j.rand.IntN(100) < 4 {
		d += time.Duration(j.rand.Int64N(int64(j.slow)))
	}
	return d
}

func (j *judged) edit(e entities.Edit) {
	now := time.Now()
	clock := j.clocks[j.rand.IntN(len(j.clocks))]
	e.Time, e.RequestID = now.Add(clock), strings.ReplaceAll(entities.UUID(), "-", "")
	j.made[e.RequestID] = now
	answer := j.world.Apply(e)
	entry := audit.Entry{
		ID: e.RequestID, RequestID: e.RequestID, Method: e.Method, Path: e.Path, Status: answer.Status, Workspace: answer.Workspace, TTL: audit.NoTTL, ClientIP: "10.0.0.1",
	}
	if e.Body != nil && j.rand.IntN(4) > 0 {
		// Kong takes secrets out of payloads, or the relay does.
		body, err := json.Marshal(e.Body)
		if err != nil {
			j.t.Fatal(err)
		}
		entry.Payload, _ = changes.Hide("", string(body), "x")
	}
	at := now.Add(j.lateness())
	stamp := func(at time.Time) int64 {
		if j.rand.IntN(2) == 0 {
			return now.Add(clock).Unix()
		}
		return at.Add(clock).Unix()
	}
	entry.Timestamp = stamp(at)
	j.edits[e.RequestID] = entry
	if lose := j.rand.IntN(500) == 0; lose {
		j.lostReqs[e.RequestID] = true
	} else {
		j.shown[e.RequestID] = at
		j.requests.add(entry, at)
	}
	for _, c := range answer.Changes {
		if j.rand.IntN(200) == 0 {
			j.lostRows[c.Row] = true
			continue
		}
		at := now.Add(j.lateness())
		if j.rand.IntN(150) == 0 { // comes after its event
			j.lateRows[c.Row] = true
			at = at.Add(time.Duration(3+j.rand.IntN(20)) * time.Second)
		}
		text := c.After
		if c.Operation == changes.Delete {
			text = c.Before
		}
		j.objects.add(audit.Entry{
			ID: "o-" + c.Row, RequestID: e.RequestID, Timestamp: stamp(at), TTL: audit.NoTTL,
			Object: &audit.Object{ID: c.Row, DAO: c.DAO, Key: c.Key, Operation: c.Operation, Entity: entities.Text(text)},
		}, at)
	}
	if j.rand.Float64() < j.tells {
		for _, r := range j.relays {
			if r.r.Notify(context.Background(), []string{e.RequestID}, now) == nil {
				break
			}
		}
	} else if j.rand.IntN(2) == 0 {
		for _, r := range j.relays {
			if r.r.Notify(context.Background(), nil, now) == nil {
				break
			}
		}
	}
}

// changeIn is a change as an event says it.
type changeIn struct {
	Entity, Key, Name, Operation, History string
	From, To                              []changes.Field
	Truncated                             int
}

type eventIn struct {
	Changes   []changeIn
	Late      bool
	Truncated int
}

// closeLedger closes the ledger, and keeps its key.
func (j *judged) closeLedger() {
	values, _, err := j.ledger.Recall(context.Background(), []string{"key"})
	if err != nil {
		j.t.Fatal(err)
	}
	j.keys[j.ledgers] = values[0]
	if err := j.ledger.Close(); err != nil {
		j.t.Fatal(err)
	}
}

// judge compares what was delivered with what was true.
func (j *judged) judge(once bool) (v verdictOf) {
	t := j.t
	byEntity := map[string][]entities.Change{}
	byRequest := map[string][]entities.Change{}
	for _, c := range j.world.Changes() {
		byEntity[c.DAO+"/"+c.Key] = append(byEntity[c.DAO+"/"+c.Key], c)
		byRequest[c.RequestID] = append(byRequest[c.RequestID], c)
	}
	unsaid := 0 // changes whose rows are there, in no event, and whose event is not late
	there := func(c entities.Change) int { return one(!j.lostRows[c.Row] && !j.purged[c.RequestID]) }
	for id, e := range j.edits {
		if j.lostReqs[id] {
			for _, c := range byRequest[id] {
				unsaid += there(c)
			}
			continue
		}
		events := j.dest.events[id]
		if (len(events) != 1 && once || len(events) == 0) && !j.purged[id] {
			t.Errorf("%s %s was delivered %d times", e.Method, e.Path, len(events))
		}
		for n := range events {
			in := decodeEvent(t, events[n].Changes)
			if (e.Method == http.MethodGet || e.Status >= 400) && events[n].Changes != "" {
				t.Errorf("%s %s %d has changes: %s", e.Method, e.Path, e.Status, events[n].Changes)
			}
			if in.Late {
				v.late++
			}
			for _, c := range byRequest[id] {
				got := in.of(c)
				quiet := n == 0 && !in.Late && j.quiet(c, byEntity[c.DAO+"/"+c.Key], byRequest[id])
				if got == nil {
					if n == 0 && !in.Late && in.Truncated == 0 {
						unsaid += there(c)
					}
					continue
				}
				v.quiet += one(quiet)
				if got.History != string(changes.Exact) {
					continue
				}
				v.exact++
				v.quietExact += one(quiet)
				mask := changes.NewMasker(j.keys[events[n].ledger], nil)
				if from, to := j.truth(mask, c); got.Truncated == 0 && (!equalFields(from, got.From) || !equalFields(to, got.To)) {
					v.wrong++
					t.Errorf("wrong exact: %s %s\n  %s %s/%s at %s\n  got  %.300v → %.300v\n  want %.300v → %.300v", e.Method, e.Path, c.Operation, c.DAO, c.Key, j.made[id].Format("15:04:05.000"), got.From, got.To, from, to)
					for _, o := range byEntity[c.DAO+"/"+c.Key] {
						if o.At.Sub(c.At).Abs() < time.Minute {
							t.Logf("   %s clock %s, %s %s request shown %s lost %v late %v", j.made[o.RequestID].Format("15:04:05.000"), o.At.Sub(j.made[o.RequestID]), o.RequestID, o.Operation, j.shown[o.RequestID].Format("15:04:05.000"), j.lostRows[o.Row] || j.lostReqs[o.RequestID], j.lateRows[o.Row])
						}
					}
				}
			}
		}
	}
	if unsaid > j.late {
		t.Errorf("%d changes are in no event, and %d were counted as late", unsaid, j.late)
	}
	v.unsaid = unsaid
	return v
}

type verdictOf struct{ exact, wrong, quiet, quietExact, late, unsaid int }

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

func decodeEvent(t testing.TB, text string) (in eventIn) {
	if text == "" {
		return in
	}
	if err := json.Unmarshal([]byte(text), &in, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatalf("changes %.200s: %v", text, err)
	}
	return in
}

// of returns what an event says of a change, nil for nothing.
func (in *eventIn) of(c entities.Change) *changeIn {
	for i := range in.Changes {
		if x := &in.Changes[i]; x.Entity == c.DAO && x.Key == c.Key && x.Operation == c.Operation {
			return x
		}
	}
	return nil
}

// quiet reports whether a change is an update of an entity that nobody else touched
// within two seconds, and whose rows are all there.
func (j *judged) quiet(c entities.Change, entity, request []entities.Change) bool {
	for _, o := range entity {
		if o.Seq != c.Seq && j.made[o.RequestID].Sub(j.made[c.RequestID]).Abs() <= 2*time.Second {
			return false
		}
	}
	for _, o := range request {
		if j.lostRows[o.Row] || j.lateRows[o.Row] {
			return false
		}
	}
	return c.Operation == changes.Update
}

// truth returns what a change was, without secrets.
func (j *judged) truth(mask *changes.Masker, c entities.Change) (from, to []changes.Field) {
	before, after := changes.State(""), changes.State("")
	if c.Before != nil {
		before = mask.Mask(c.DAO, c.Key, string(c.Before), "")
	}
	if c.After != nil {
		after = mask.Mask(c.DAO, c.Key, string(c.After), "")
	}
	return changes.Diff(before, after)
}

func equalFields(a, b []changes.Field) bool {
	return slices.EqualFunc(a, b, func(x, y changes.Field) bool {
		return x.Path == y.Path && string(x.Value) == string(y.Value)
	})
}

// secrets looks for planted secrets in everything that was delivered, logged or stored.
func (j *judged) secrets(dir string) {
	t := j.t
	var all strings.Builder
	for _, events := range j.dest.events {
		for _, e := range events {
			all.WriteString(e.Changes)
		}
	}
	all.Write(j.logs.Bytes())
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	text := all.String()
	places := map[string]bool{}
	for _, s := range j.gen.Secrets() {
		places[s.Place] = true
		for _, form := range []string{s.Value, base64.StdEncoding.EncodeToString([]byte(s.Value))[:40], hex.EncodeToString([]byte(s.Value))} {
			if strings.Contains(text, form) {
				t.Errorf("a secret of %s shows", s.Place)
			}
		}
	}
	t.Logf("%d secrets in %d kinds of places", len(j.gen.Secrets()), len(places))
}

func newJudged(t testing.TB, seed uint64, tells float64) (*judged, string) {
	dir, err := os.MkdirTemp("/dev/shm", "judge")
	if err != nil {
		dir = t.TempDir()
	}
	j := &judged{
		t: t, rand: rand.New(rand.NewPCG(seed+*more, 0)), histories: map[string]int{}, edits: map[string]audit.Entry{},
		lostRows: map[string]bool{}, lateRows: map[string]bool{}, lostReqs: map[string]bool{}, purged: map[string]bool{}, shown: map[string]time.Time{}, made: map[string]time.Time{}, tells: tells,
		clocks: []time.Duration{0}, slow: 1100 * time.Millisecond,
		dest: destination{events: map[string][]put{}}, keys: map[int][]byte{},
	}
	j.gen = entities.NewGenerator(&j.world, seed+*more)
	j.openLedger(dir)
	return j, dir
}

// edits makes n edits or a few more.
func (j *judged) makeEdits(n int) {
	for n > 0 {
		step := j.gen.Next()
		pause(step.Pause)
		for _, e := range step.Edits {
			j.edit(e)
			n--
		}
	}
}

// TestEveryExactIsTrue edits a Kong some hundred times, with rows that come late, in any
// order or never, and compares what events say with what was true.
func TestEveryExactIsTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, dir := newJudged(t, 1, 1)
		defer os.RemoveAll(dir)
		j.start()
		j.makeEdits(*edits)
		pause(2 * time.Hour)
		j.stopAll()
		j.closeLedger()
		v := j.judge(true)
		t.Logf("%+v, histories %v, %d late rows, pages: %d of objects, %d of requests", v, j.histories, j.late, j.objects.reads, j.requests.reads)
		if least := 9 - one(*edits < 1000); v.quietExact*10 < v.quiet*least { // few edits are no fair sample
			t.Errorf("%d of %d quiet updates are exact", v.quietExact, v.quiet)
		}
		j.secrets(dir)
	})
}

// TestEveryExactIsTrueOfAnyClock is the same with control planes whose clocks differ by
// some seconds, and requests of which some are not announced.
func TestEveryExactIsTrueOfAnyClock(t *testing.T) {
	for _, apart := range []time.Duration{3 * time.Second, -3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			j, dir := newJudged(t, 4, 0.8)
			defer os.RemoveAll(dir)
			j.clocks = []time.Duration{0, apart}
			j.start()
			j.makeEdits(*edits)
			pause(2 * time.Hour)
			j.stopAll()
			j.closeLedger()
			v := j.judge(true)
			t.Logf("clocks %s apart: %+v, histories %v, %d late rows", apart, v, j.histories, j.late)
			if v.quietExact*10 < v.quiet*8 {
				t.Errorf("%d of %d quiet updates are exact", v.quietExact, v.quiet)
			}
		})
	}
}

// TestEveryExactIsTrueInTrouble is the same with a relay that is down now and then, rows
// that are purged meanwhile, a ledger that is emptied, a second relay, and a log of
// changed entities that cannot be read for a while.
func TestEveryExactIsTrueInTrouble(t *testing.T) {
	for _, newest := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			j, dir := newJudged(t, 2, 0.7)
			defer os.RemoveAll(dir)
			j.objects.newest, j.requests.newest = newest, newest
			j.start()
			for i := range *edits / 40 {
				j.makeEdits(25)
				switch i % 6 {
				case 0: // down
					j.stopAll()
					j.makeEdits(15)
					j.start()
				case 1: // down, and rows are purged unread
					j.stopAll()
					j.makeEdits(15)
					j.purge(time.Now().Add(-time.Duration(j.rand.IntN(60)) * time.Second))
					j.start()
				case 2: // rows are purged
					j.purge(time.Now().Add(-time.Duration(j.rand.IntN(300)) * time.Second))
				case 3: // another ledger
					j.stopAll()
					j.closeLedger()
					j.openLedger(dir)
					j.start()
				case 4: // a second relay
					j.start()
					j.makeEdits(15)
					j.relays[0].stop()
					<-j.relays[0].done
					j.relays = j.relays[1:]
				case 5: // no objects
					j.objects.setDown(true)
					j.makeEdits(10)
					j.objects.setDown(false)
				}
			}
			pause(2 * time.Hour)
			j.stopAll()
			j.closeLedger()
			v := j.judge(false)
			t.Logf("newest first %v: %+v, histories %v, %d late rows", newest, v, j.histories, j.late)
			j.secrets(dir)
		})
	}
}

// edits is how many edits a test makes.
var (
	edits = flag.Int("judge.edits", 160, "edits that each test of exact histories makes")
	more  = flag.Uint64("judge.seed", 0, "added to the seed of each test of exact histories")
)

// purge removes the rows before a time from both logs.
func (j *judged) purge(before time.Time) {
	for _, e := range j.requests.purge(before) {
		j.purged[e.ID] = true
	}
	for _, e := range j.objects.purge(before) {
		j.lostRows[e.Object.ID] = true // perhaps
	}
}

// purge removes the rows before a time.
func (t *table) purge(before time.Time) (gone []audit.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.show()
	t.rows = slices.DeleteFunc(t.rows, func(e audit.Entry) bool {
		if e.Timestamp < before.Unix() {
			gone = append(gone, e)
			return true
		}
		return false
	})
	return gone
}

func (t *table) setDown(down bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.down = down
}

var _ walk.Source = (*table)(nil)

// pause lets time pass.
func pause(d time.Duration) { <-time.NewTimer(d).C }

// Reads are delivered at once although writes wait for rows.
func TestReadsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, dir := newJudged(t, 3, 1)
		defer os.RemoveAll(dir)
		j.start()
		for range 60 {
			j.edit(j.gen.Next().Edits[0])
			pause(100 * time.Millisecond)
		}
		pause(time.Minute)
		j.stopAll()
		j.closeLedger()
		slowest := map[bool]time.Duration{}
		for id, e := range j.edits {
			if j.lostReqs[id] {
				continue
			}
			if len(j.dest.events[id]) != 1 {
				t.Fatalf("%s %s was delivered %d times", e.Method, e.Path, len(j.dest.events[id]))
			}
			slowest[e.IsWrite()] = max(slowest[e.IsWrite()], j.dest.events[id][0].at.Sub(j.shown[id]))
		}
		t.Logf("the slowest read took %s, the slowest write %s", slowest[false], slowest[true])
		if slowest[false] > 400*time.Millisecond || slowest[true] > 3*time.Second {
			t.Errorf("a read waited %s, a write %s", slowest[false], slowest[true])
		}
	})
}
