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
	firstRowWait = 2 * time.Second        // how long a write waits for its first row, and an update before it is called exact
	nextRowWait  = 500 * time.Millisecond // how long a write waits for another row after the last one
	minWait      = 100 * time.Millisecond // least time between two reads of rows for which a write waits

	// margin is how many seconds two rows of an entity must be apart for their order to be
	// certain: times are whole seconds, and the time of a row is when it was inserted.
	margin = 2
	// skew takes the place of margin if nothing but the times is known: the clocks of control
	// planes differ.
	skew = 6
	// settledAge is the age in seconds at which an entry has all of its rows.
	settledAge = 10
	// lostAfter is the age in seconds of a row at which its request counts as lost.
	lostAfter = 30
	// The rows of a request are mostly shown within shownWithin of it, and it is mostly
	// announced within announcedWithin: the order of two changes may rest on this.
	shownWithin     = 3 * time.Second
	announcedWithin = time.Second
	// For unannouncedFor after a write that was not announced, other writes count as possibly
	// unannounced as well.
	unannouncedFor = 10 * time.Minute
	// A read begins lookback seconds before the point to which rows have been read, because
	// rows come late; one read every longEvery begins longLookback seconds before it.
	lookback     = 30
	longLookback = 5 * 60
	longEvery    = 10 * time.Second
	// lookahead is by how many seconds a row may be later than its entry.
	lookahead = 60
	// readEvery is how often rows are read while no write waits, to find those that come late.
	readEvery = 10 * time.Second
	// expiryMargin is the number of seconds before its expiry from which on a row may be gone.
	expiryMargin = 60 * 60

	// pageWithin bounds the wait for a page of rows, and tailWithin that of a tail. After a
	// read that failed, a tail does not read rows for failedFor: it has other things to do.
	pageWithin = 20 * time.Second
	tailWithin = time.Second
	failedFor  = 10 * time.Second

	// journalLife is how long the changes of a request are remembered, so that its event is
	// the same if it has to be put again.
	journalLife = 6 * time.Hour

	maxEvent   = 80_000           // bytes of the changes in an event, which leave room for a large payload
	maxState   = 400_000          // bytes of an entity that is remembered
	maxRequest = 500_000          // bytes of a request to the ledger: some servers refuse a mebibyte
	maxOpen    = 1000             // writes without rows that are remembered
	maxOthers  = 1000             // rows that no write waits for and that are applied at once
	maxUndated = 10_000           // rows without a time that are remembered
	maxRecent  = 50_000           // keys in each half of a recent
	maxFirst   = 10 * time.Minute // for which a write or a row is remembered that nothing comes of

	maxEntities = 50_000 // that are remembered
)

// Ledger remembers what became of entries, and which rows have been applied.
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
	// Announced returns the ids that triggers announced and that may not have shown up yet:
	// each may belong to an earlier change. May be nil.
	Announced func(ctx context.Context) ([]audit.Announcement, error)

	PageSize int
	StartAt  int64 // rows older than this Unix second are left out; 0: none
	// RecordTTL is how long Kong keeps a row that does not say so itself. Default 30 days.
	RecordTTL time.Duration
	// Redact names more secrets, as dotted paths.
	Redact []string

	Observer Observer
	Logger   *slog.Logger
}

// Observer observes what happens. Every field may be nil; none may block.
type Observer struct {
	// Changed is called for each change in an event.
	Changed func(certainty string)
	// Late is called with the number of rows that came after their event.
	Late func(rows int)
}

// Joiner joins entries with the rows of what their requests changed. It is safe for concurrent
// use.
type Joiner struct {
	opts   Options
	log    *slog.Logger
	reader *walk.Reader
	source *impatient // of reader

	seenMu sync.Mutex
	seen   recent[struct{}]     // requests that the log has shown
	first  map[string]time.Time // when a write that waits was first seen

	turn        *semaphore.Weighted // held by the Join under way; guards the fields below
	loaded      bool
	version     int64
	meta        meta
	masker      *changes.Masker
	key         []byte
	applied     recent[struct{}]  // rows
	rowsOf      recent[struct{}]  // requests of which there were rows
	announcedAt recent[time.Time] // when a request was announced

	lagged   time.Time         // when a write was met whose row came later than firstRowWait
	rowFirst map[string]sight  // by row that is not applied
	made     recent[time.Time] // by row: a time before which its change was made, and every change that may be later
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

// impatient is a source that bounds the wait for a page: events without their changes are
// better than late ones.
type impatient struct {
	source walk.Source
	within time.Duration // bounds the wait
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

// Hold reports whether a new entry has to be joined before it is delivered, because it is a
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

// Join returns the writes that wait no longer, with what they changed, and when to ask again
// for the others. If the rows cannot be read, Join logs it, and the writes wait as long as
// for rows that do not come. Its error is the ledger's.
func (j *Joiner) Join(ctx context.Context, w audit.Writes) (ready []audit.Entry, again time.Time, err error) {
	switch {
	case !w.Live:
		if j.turn.Acquire(ctx, 1) != nil {
			return nil, time.Time{}, context.Cause(ctx)
		}
	case !j.turn.TryAcquire(1): // whatever else a tail has read must not wait for another tail's rows
		if len(w.Entries) > 0 {
			again = time.Now().Add(minWait)
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

// concluded forgets that entries waited.
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

// load reads what the ledger remembers, and makes the writes ready whose changes were
// remembered before.
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

// MarkedLate returns the key under which the ledger remembers that the event of an entry
// was put without its changes.
func MarkedLate(id string) string { return "late:" + id }

func journalKey(id string) string { return "changes:" + id }

// sight is when a row was first seen, and a time at which it was not there yet, or zero if none
// is known.
type sight struct{ first, absent time.Time }

// recent remembers a value for each of the latest maxRecent keys, and for some before them. The
// zero value is ready.
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
