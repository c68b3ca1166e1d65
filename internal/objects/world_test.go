package objects_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
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
)

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
		Observer: pipeline.Observer{Seen: s.Seen, Delivered: func(e []audit.Entry) { s.Delivered(time.Now(), e) }},
	})
	ctx, cancel := context.WithCancel(context.Background())
	r = &relay{stop: cancel, done: make(chan struct{}), s: s}
	r.r = runner.New(runner.Options{
		Passes: p, Scheduler: s, Ledger: l, Schedule: time.Hour, LeaseWait: time.Second, Logger: log,
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

// pause lets time pass.
func pause(d time.Duration) { <-time.NewTimer(d).C }
