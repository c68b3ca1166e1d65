package objects_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
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
	events map[string][]audit.Entry
	at     map[string]time.Time
}

func (d *destination) Put(_ context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	verdicts := make([]audit.Verdict, len(entries))
	for i, e := range entries {
		verdicts[i].Status = audit.Accepted
		d.events[e.ID] = append(d.events[e.ID], e)
		if d.at[e.ID].IsZero() {
			d.at[e.ID] = time.Now()
		}
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
	logs     bytes.Buffer
	logMu    sync.Mutex

	mu        sync.Mutex
	histories map[string]int
	late      int
	edits     map[string]audit.Entry // by request id
	lostRows  map[string]bool
	lateRows  map[string]bool
	lostReqs  map[string]bool
	shown     map[string]time.Time // when a request's row shows up
	relays    []*relay
	tells     float64 // share of requests that are announced
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
		TTL:     10 * time.Second,
		Acquire: func(ctx context.Context, rerun bool) (lease.Lease, error) { return l.Acquire(ctx, rerun) },
		Begin:   func(ctx context.Context) error { _, err := l.Begin(ctx); return err },
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
		d += time.Duration(j.rand.Int64N(int64(1100 * time.Millisecond)))
	}
	return d
}

func (j *judged) edit(e entities.Edit) {
	now := time.Now()
	e.Time, e.RequestID = now, strings.ReplaceAll(entities.UUID(), "-", "")
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
			return now.Unix()
		}
		return at.Unix()
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

type verdictOf struct {
	exact, wrong, quiet, quietExact, missing, lateEvents, updates, updatesExact int
}

// judge compares what was delivered with what was true.
func (j *judged) judge(once bool) (v verdictOf) {
	t := j.t
	masker := func(key []byte) *changes.Masker { return changes.NewMasker(key, nil) }
	values, _, err := j.ledger.Recall(context.Background(), []string{"key"})
	if err != nil || len(values[0]) == 0 {
		t.Fatal("no key", err)
	}
	mask := masker(values[0])
	all := j.world.Changes()
	byEntity := map[string][]entities.Change{}
	byRequest := map[string][]entities.Change{}
	for _, c := range all {
		byEntity[c.DAO+"/"+c.Key] = append(byEntity[c.DAO+"/"+c.Key], c)
		byRequest[c.RequestID] = append(byRequest[c.RequestID], c)
	}
	uncounted := 0
	for id, e := range j.edits {
		if j.lostReqs[id] {
			uncounted += len(byRequest[id])
			continue
		}
		events := j.dest.events[id]
		if len(events) != 1 && once || len(events) == 0 {
			t.Errorf("%s %s was delivered %d times", e.Method, e.Path, len(events))
			continue
		}
		var in eventIn
		if events[0].Changes != "" {
			if err := json.Unmarshal([]byte(events[0].Changes), &in, json.MatchCaseInsensitiveNames(true)); err != nil {
				t.Fatalf("changes %.200s: %v", events[0].Changes, err)
			}
		}
		if in.Late {
			v.lateEvents++
		}
		if (e.Method == http.MethodGet || e.Status >= 400) && events[0].Changes != "" {
			t.Errorf("%s %s %d has changes: %s", e.Method, e.Path, e.Status, events[0].Changes)
		}
		for _, c := range byRequest[id] {
			at := slices.IndexFunc(in.Changes, func(x changeIn) bool { return x.Entity == c.DAO && x.Key == c.Key && x.Operation == c.Operation })
			quiet := c.Operation == changes.Update && !in.Late
			for _, o := range byEntity[c.DAO+"/"+c.Key] {
				if d := o.At.Sub(c.At).Abs(); o.Seq != c.Seq && d <= 2*time.Second {
					quiet = false
				}
			}
			for _, o := range byRequest[id] {
				quiet = quiet && !j.lostRows[o.Row] && !j.lateRows[o.Row]
			}
			if at < 0 {
				if !in.Late && !j.lostRows[c.Row] && !j.lateRows[c.Row] && in.Truncated == 0 {
					v.missing++
				}
				if !in.Late {
					uncounted++
				}
				continue
			}
			got := in.Changes[at]
			if c.Operation == changes.Update {
				v.updates++
			}
			if quiet {
				v.quiet++
			}
			if got.History != string(changes.Exact) {
				continue
			}
			v.exact++
			if c.Operation == changes.Update {
				v.updatesExact++
			}
			if quiet {
				v.quietExact++
			}
			before, after := changes.State(""), changes.State("")
			if c.Before != nil {
				before = mask.Mask(c.DAO, c.Key, string(c.Before), "")
			}
			if c.After != nil {
				after = mask.Mask(c.DAO, c.Key, string(c.After), "")
			}
			from, to := changes.Diff(before, after)
			if got.Truncated == 0 && once && (!equalFields(from, got.From) || !equalFields(to, got.To)) {
				v.wrong++
				t.Errorf("wrong exact: %s %s\n  %s %s/%s at %s\n  got  %.300v → %.300v\n  want %.300v → %.300v", e.Method, e.Path, c.Operation, c.DAO, c.Key, c.At.Format("15:04:05.000"), got.From, got.To, from, to)
				for _, o := range byEntity[c.DAO+"/"+c.Key] {
					if o.At.Sub(c.At).Abs() < time.Minute {
						t.Logf("   %s %s %s row shown %s lost %v late %v", o.At.Format("15:04:05.000"), o.RequestID, o.Operation, j.shown[o.RequestID].Format("15:04:05.000"), j.lostRows[o.Row] || j.lostReqs[o.RequestID], j.lateRows[o.Row])
					}
				}
			}
		}
	}
	t.Logf("%d uncounted, %d late rows", uncounted, j.late)
	return v
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
		t: t, rand: rand.New(rand.NewPCG(seed, 0)), histories: map[string]int{}, edits: map[string]audit.Entry{},
		lostRows: map[string]bool{}, lateRows: map[string]bool{}, lostReqs: map[string]bool{}, shown: map[string]time.Time{}, tells: tells,
		dest: destination{events: map[string][]audit.Entry{}, at: map[string]time.Time{}},
	}
	j.gen = entities.NewGenerator(&j.world, seed)
	j.openLedger(dir)
	return j, dir
}

var _ walk.Source = (*table)(nil)

// pause lets time pass.
func pause(d time.Duration) { <-time.NewTimer(d).C }

// TestEveryExactIsTrue edits a Kong some thousand times, with rows that come late, in any
// order or never, and compares what events say with what was true.
func TestEveryExactIsTrue(t *testing.T) {
	for _, c := range []struct {
		name  string
		tells float64
	}{{"announced", 1}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j, dir := newJudged(t, 1, c.tells)
				defer os.RemoveAll(dir)
				j.start()
				for n := 0; n < 400; {
					step := j.gen.Next()
					pause(step.Pause)
					for _, e := range step.Edits {
						j.edit(e)
						n++
					}
				}
				pause(2 * time.Hour)
				j.stopAll()
				v := j.judge(true)
				t.Logf("%+v, histories %v, object pages %d, request pages %d", v, j.histories, j.objects.reads, j.requests.reads)
				if v.quietExact*10 < v.quiet*9 {
					t.Errorf("%d of %d quiet updates are exact", v.quietExact, v.quiet)
				}
				j.secrets(dir)
				if err := j.ledger.Close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}
