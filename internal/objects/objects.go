// Package objects puts the rows of Kong's /audit/objects together with the entries
// whose requests changed those entities, and says from what to what.
//
// Kong's times are whole seconds, its rows come late and in any order, and some never
// come. So "the last state that was seen is the one before" is often wrong, and a change
// is called exact only where nothing can have come between: see [round.history].
package objects

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/walk"
)

const (
	firstRow = 2 * time.Second        // how long a write waits for its first row, and an update to be called exact
	apart    = 500 * time.Millisecond // how long it waits for more rows after the last one
	minAgain = 100 * time.Millisecond // between two looks for rows

	// margin is how many seconds two rows of an entity must be apart for their order to be
	// certain: times are whole seconds, and that of a row is when it was inserted.
	margin = 2
	// skew is the same where only the times are known: the clocks of control planes differ.
	skew = 6
	// settled is how many seconds old an entry is whose rows are all there.
	settled = 10
	// lost is after how many seconds the request of a row counts as lost.
	lost = 30
	// shownWithin is within which time of a request its rows are mostly shown, and
	// announcedWithin within which it is announced: the order of two changes may rest on them.
	shownWithin     = 3 * time.Second
	announcedWithin = time.Second
	// unannouncedFor is for how long a write that was not announced shows that others may not be.
	unannouncedFor = 10 * time.Minute
	// lookback is how many seconds before what has been read a read begins: rows come late.
	lookback = 30
	// longLookback is the same for some reads, one every longEvery.
	longLookback = 5 * 60
	longEvery    = 10 * time.Second
	// lookahead is how many seconds after an entry's its rows may have.
	lookahead = 60
	// readEvery is how often rows are read although no write waits: for those that come late.
	readEvery = 10 * time.Second
	// expiryMargin is how many seconds before its expiry a row is no longer expected.
	expiryMargin = 60 * 60

	// pageWithin is how long a page of rows may take, tailWithin how long for a tail, and
	// failedFor for how long a tail does not read them again after a read that failed: it has
	// more to do.
	pageWithin = 20 * time.Second
	tailWithin = time.Second
	failedFor  = 10 * time.Second

	// journalLife is for how long what was said of a request is remembered, so that it is
	// said again if its event has to be put again.
	journalLife = 6 * time.Hour

	maxEvent   = 80_000  // bytes of what an event says of changes: it fits beside a large payload
	maxState   = 400_000 // bytes of an entity that is remembered
	maxRequest = 500_000 // bytes that the ledger is sent at once: some servers refuse a mebibyte
	maxOpen    = 1000    // writes without rows that are kept in mind
	maxOthers  = 1000    // rows that no write waits for, applied at once
	maxUndated = 10_000  // rows without a time that are kept in mind
	maxRecent  = 50_000  // keys that are remembered, twice
	maxFirst   = 10 * time.Minute

	maxEntities = 50_000 // that are remembered
)

// Ledger remembers what became of entries, and which rows have been taken into account.
// Safe for concurrent use.
type Ledger interface {
	// Lookup returns what became of each entry, audit.NoOutcome for an unknown one.
	Lookup(ctx context.Context, entries []audit.Entry) ([]audit.Outcome, error)
	// Record is durable once it returns nil. Repeating it is harmless.
	Record(ctx context.Context, records []audit.Record) error
}

// Memory keeps the last state of entities. Safe for concurrent use.
type Memory interface {
	// Recall returns what is remembered under keys, nil for nothing, and a version.
	Recall(ctx context.Context, keys []string) (values [][]byte, version int64, err error)
	// Remember stores all items or none, and is durable once it returns nil. It fails with
	// audit.ErrMemoryChanged if the version is another one. It keeps at most so many items
	// and returns how many others had to go.
	Remember(ctx context.Context, version int64, items []audit.Item, most int) (dropped int, err error)
}

// Options of a joiner. Source, Ledger and Memory are required.
type Options struct {
	Source walk.Source // GET /audit/objects
	Ledger Ledger
	Memory Memory
	// Announced returns the ids that triggers announced and that may still have to show up:
	// each may be of an earlier change. May be nil.
	Announced func(ctx context.Context) ([]audit.Announcement, error)

	PageSize int
	StartAt  int64 // rows older than this Unix second are left out; 0: none
	// RecordTTL is how long Kong keeps a row that does not say. Default 30 days.
	RecordTTL time.Duration
	// Redact names more secrets, as dotted paths.
	Redact []string

	Observer Observer
	Logger   *slog.Logger
}

// Observer observes what happens. Every field may be nil; none may block.
type Observer struct {
	// Changed is called for each change that an event says something of.
	Changed func(certainty string)
	// Late is called with how many rows came after their event.
	Late func(rows int)
}

// Joiner joins. It is safe for concurrent use.
type Joiner struct {
	opts   Options
	log    *slog.Logger
	reader *walk.Reader
	source *impatient // of reader

	seenMu sync.Mutex
	seen   recent[struct{}]     // requests that the log has shown
	first  map[string]time.Time // when a write that waits was first seen

	turn        *semaphore.Weighted // held by the Join under way, which what follows belongs to
	loaded      bool
	version     int64
	meta        meta
	masker      *changes.Masker
	key         []byte
	applied     recent[struct{}]  // rows
	rowsOf      recent[struct{}]  // requests of which there were rows
	announcedAt recent[time.Time] // when a request was announced

	lagged   time.Time         // when a write was met whose row came later than firstRow
	rowFirst map[string]sight  // of a row that is not applied
	made     recent[time.Time] // before when the change of a row was made, and of any that may be later
	readAt   time.Time         // when the last read of all rows from readFrom on began
	readFrom int64
	undated  map[string][]row // by request
	lastRead time.Time
	lastLong time.Time
	failing  bool
	full     time.Time // when items were last dropped
}

// New returns a joiner.
func New(o Options) *Joiner {
	o.RecordTTL = cmp.Or(o.RecordTTL, 30*24*time.Hour)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	source := &impatient{source: o.Source}
	return &Joiner{
		source: source, opts: o, log: o.Logger, turn: semaphore.NewWeighted(1), first: map[string]time.Time{}, rowFirst: map[string]sight{}, undated: map[string][]row{},
		reader: walk.NewReader(walk.Options{Source: source, PageSize: o.PageSize, StartAt: o.StartAt, Logger: o.Logger}),
	}
}

// impatient is a source that is not waited for long: writes go without their changes
// rather than late.
type impatient struct {
	source walk.Source
	within time.Duration // for a page
}

func (s *impatient) Page(ctx context.Context, q audit.Query) (audit.Page, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.within, fmt.Errorf("kong did not answer within %s", s.within))
	defer cancel()
	page, err := s.source.Page(ctx, q)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return page, err
}

// Hold reports whether an entry that is new has to be joined before it is delivered: a
// write. It is called for each new entry.
func (j *Joiner) Hold(e *audit.Entry) bool {
	holds := e.Changes == "" && e.IsWrite() && !changesNothing(e.Path)
	j.seenMu.Lock()
	defer j.seenMu.Unlock()
	j.seen.put(e.ID, struct{}{})
	if holds {
		if _, waits := j.first[e.ID]; !waits {
			j.first[e.ID] = time.Now()
		}
	}
	return holds
}

// Join returns those of the writes that wait no longer, with what they changed, and when
// to ask again for the others. A read of the rows that fails is logged, and its writes
// wait their time. An error is the ledger's.
func (j *Joiner) Join(ctx context.Context, w audit.Writes) (ready []audit.Entry, again time.Time, err error) {
	switch {
	case !w.Live:
		if j.turn.Acquire(ctx, 1) != nil {
			return nil, time.Time{}, context.Cause(ctx)
		}
	case !j.turn.TryAcquire(1): // what a tail has read besides must not wait for another's rows
		if len(w.Entries) > 0 {
			again = time.Now().Add(minAgain)
		}
		return nil, again, nil
	}
	defer j.turn.Release(1)
	if len(w.Entries) == 0 && !w.Sweep && time.Since(j.lastRead) < readEvery {
		return nil, time.Time{}, nil
	}
	for attempt := 0; ; attempt++ {
		ready, again, err = j.join(ctx, w)
		if !errors.Is(err, audit.ErrMemoryChanged) || attempt == 2 {
			return ready, again, err
		}
		j.loaded = false
	}
}

func (j *Joiner) join(ctx context.Context, w audit.Writes) ([]audit.Entry, time.Time, error) {
	r := &round{Joiner: j, w: w, now: time.Now(), prevRead: j.readAt, waits: map[string]*pending{}, rows: map[string]*row{}, states: map[string]*state{}, changed: map[string]bool{}, said: map[string]bool{}}
	if err := r.load(ctx); err != nil {
		return nil, time.Time{}, err
	}
	if err := r.read(ctx); err != nil {
		return nil, time.Time{}, err
	}
	if err := r.conclude(ctx); err != nil {
		return nil, time.Time{}, err
	}
	if err := r.save(ctx); err != nil {
		return nil, time.Time{}, err
	}
	j.concluded(r.ready)
	return r.ready, r.again, nil
}

// concluded forgets that entries wait.
func (j *Joiner) concluded(ready []audit.Entry) {
	j.seenMu.Lock()
	defer j.seenMu.Unlock()
	for i := range ready {
		delete(j.first, ready[i].ID)
	}
	for id, at := range j.first {
		if time.Since(at) > maxFirst {
			delete(j.first, id)
		}
	}
}

// firstSeen returns when a write that waits was first seen.
func (j *Joiner) firstSeen(id string) (time.Time, bool) {
	j.seenMu.Lock()
	defer j.seenMu.Unlock()
	at, ok := j.first[id]
	return at, ok
}

func (j *Joiner) wasSeen(id string) bool {
	j.seenMu.Lock()
	defer j.seenMu.Unlock()
	return j.seen.has(id)
}

// load learns what the ledger remembers, and sets apart the writes of which something
// has been said before.
func (r *round) load(ctx context.Context) error {
	j := r.Joiner
	keys := []string{"meta", "key"}
	for i := range r.w.Entries {
		keys = append(keys, journalKey(r.w.Entries[i].ID))
	}
	values, version, err := j.opts.Memory.Recall(ctx, keys)
	if err != nil {
		return fmt.Errorf("recalling what is known of entities: %w", err)
	}
	if !j.loaded || version != j.version {
		j.applied, j.meta, j.key = recent[struct{}]{}, decodeMeta(values[0]), values[1]
		if len(j.key) == 0 {
			j.key = make([]byte, 32)
			_, _ = rand.Read(j.key) // it does not fail
		}
		j.masker = changes.NewMasker(j.key, j.opts.Redact)
		j.loaded, j.version = true, version
	}
	r.meta = j.meta.clone()
	if r.meta.Unannounced == 0 { // it is not known yet
		r.meta.Unannounced = r.now.Unix()
	}
	for i := range r.w.Entries {
		e := r.w.Entries[i]
		if said := values[2+i]; said != nil {
			e.Changes = string(inflate(said))
			r.ready = append(r.ready, e)
			r.said[e.ID] = true
			continue
		}
		p := &pending{entry: e}
		var ok bool
		if p.first, ok = j.firstSeen(e.ID); !ok {
			p.first = r.now
		}
		r.pending = append(r.pending, p)
		r.waits[e.RequestID] = p
	}
	return nil
}

// MarkedLate returns under which key the ledger remembers that the event of an entry
// went without its changes.
func MarkedLate(id string) string { return "late:" + id }

func journalKey(id string) string { return "changes:" + id }

// sight is when a row was first seen, and when it was not there yet; zero if that is not known.
type sight struct{ first, absent time.Time }

// recent remembers a value for each of the latest keys, some ten thousands. The zero value is
// ready.
type recent[V any] struct{ young, old map[string]V }

// put remembers a value for a key, which it copies.
func (r *recent[V]) put(key string, v V) {
	if r.young == nil || len(r.young) >= maxRecent {
		r.young, r.old = make(map[string]V, 64), r.young
	}
	r.young[strings.Clone(key)] = v
}

func (r *recent[V]) get(key string) (V, bool) {
	if v, ok := r.young[key]; ok {
		return v, true
	}
	v, ok := r.old[key]
	return v, ok
}

func (r *recent[V]) has(key string) bool {
	_, ok := r.get(key)
	return ok
}

// putLater remembers a time for a key, unless a later one is remembered.
func putLater(r *recent[time.Time], key string, t time.Time) {
	if was, ok := r.get(key); !ok || was.Before(t) {
		r.put(key, t)
	}
}
