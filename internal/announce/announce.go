// Package announce knows which requests triggers announced, and decides when which
// pass is to be made.
//
// It is a plain state machine: it starts no goroutine, reads no clock and contacts
// nobody. Its host tells it what happened and asks it what to do next.
package announce

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	// While the scheduler waits for ids, it repeats tails at an interval that grows from
	// minInterval to maxInterval. Most rows appear within a second: for promptFor after a
	// trigger that this process received, the interval is at most promptInterval.
	minInterval    = 100 * time.Millisecond
	promptInterval = 150 * time.Millisecond
	promptFor      = time.Second
	maxInterval    = 5 * time.Second

	// repeatFor is how long tails are repeated after a trigger that named no id: nothing
	// tells when its entry has shown up, and Kong can take some seconds to write it. A
	// shorter Options.Follow replaces it.
	repeatFor = 7 * time.Second

	// blockedRetry is the wait before another try of a tail that could not be made beside a
	// reconcile of a log without order. The end of that reconcile ends the wait.
	blockedRetry = 5 * time.Second

	// A pass that failed is made again after a time that doubles from firstRetry to
	// lastRetry. A trigger brings the retry forward, since it shows that Kong answers, but
	// to no sooner than retryGap after the failure.
	firstRetry = 2 * time.Second
	lastRetry  = 5 * time.Minute
	retryGap   = 250 * time.Millisecond

	// heldRetry is the least time between two attempts to get a lease that another relay holds.
	heldRetry = 500 * time.Millisecond

	// Tails of a log without order, each of which reads the whole log, take at most
	// 1/unorderedShare of the time.
	unorderedShare = 10
)

// Options of a scheduler.
type Options struct {
	// Debounce is how long triggers are gathered before a tail.
	Debounce time.Duration
	// Schedule is the time between reconciles; 0 for only those that are asked for.
	Schedule time.Duration
	// TailNotBefore is the time before which no tail is made; zero for no such time.
	TailNotBefore time.Time
	// Follow is how long tails are repeated for an id. Default: MissingAfter.
	Follow time.Duration
}

// Scheduler decides when which pass is to be made. It is safe for concurrent use.
// Times that it is given must not go backwards by much.
type Scheduler struct {
	opts Options

	mu  sync.Mutex
	ids announced

	// Tails.
	nextTail      time.Time // zero: no tail is planned
	lastTail      time.Time
	lastNotified  time.Time
	interval      time.Duration // between the last tail and the next
	followUntil   time.Time     // tails are repeated for ids until then
	tailRequested bool          // a tail is due even if no id is waited for
	repeatUntil   time.Time     // tails are repeated until then for a trigger without ids

	// Passes.
	reconciling     bool      // a reconcile is under way
	tailing         bool      // a tail is reading; once it has read the log it counts in delivering
	delivering      int       // tails that have read the log and are not at their end
	tailForced      bool      // the tail under way is to be made even if no id is waited for
	tailPlanned     time.Time // the time for which the tail under way was planned
	reconcileAt     time.Time // zero: no reconcile is planned
	reconcileForced bool      // to be made even if another relay has recently made one
	tailNotBefore   time.Time
	retryAfter      time.Duration  // wait after the next failure
	failed          audit.PassKind // the pass that failed last and has not succeeded since
	failedAt        time.Time
	standby         audit.PassKind // the pass to make if the relay that holds the lease has died
	standbyAt       time.Time      // when its lease has run out unless it was renewed
}

// New returns a scheduler. Until [Scheduler.RequestReconcile] nothing is planned.
func New(o Options) *Scheduler {
	if o.Follow <= 0 {
		o.Follow = MissingAfter
	}
	return &Scheduler{opts: o, ids: newAnnounced(), interval: minInterval, retryAfter: firstRetry, tailNotBefore: o.TailNotBefore}
}

// RequestReconcile asks for a reconcile at once. If forced, it is made even if another
// relay has recently made one.
func (s *Scheduler) RequestReconcile(now time.Time, forced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reconcileAt, s.reconcileForced = now, s.reconcileForced || forced
}

// Notify takes a trigger. The ids that it announced are on the ledger's list by now. A
// trigger without ids asks for tails without saying what to look for.
func (s *Scheduler) Notify(now time.Time, ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids.add(now, ids)
	if len(ids) == 0 {
		s.tailRequested = true
		s.repeatUntil = now.Add(min(repeatFor, s.opts.Follow))
	}
	s.follow(now, now)
	s.lastNotified = now
	s.tailSoon(now, s.opts.Debounce)
	s.bringRetryForward(now)
}

// RequestTail asks for a single tail, to be made at the given time even if no id is waited
// for.
func (s *Scheduler) RequestTail(now, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requestTail(now, at)
}

// Listed takes the ledger's list of announced ids: those that other relays noted, and
// those from before a restart. began is when reading the list began.
func (s *Scheduler) Listed(now, began time.Time, list []audit.Announcement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if latest := s.ids.merge(now, began, list); !latest.IsZero() {
		s.follow(now, latest)
		s.tailSoon(now, s.opts.Debounce)
	}
	s.cancelTail()
}

// MaybeOwnReads returns the ids that were noted so recently that they may still turn out
// to be own reads of another relay.
func (s *Scheduler) MaybeOwnReads(now time.Time) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, w := range s.ids.waiting {
		if now.Sub(w.noted) < ownReadTime {
			ids = append(ids, id)
		}
	}
	return ids
}

// Ignore stops waiting for ids that are not worth a tail, and has them struck off the
// ledger's list.
func (s *Scheduler) Ignore(ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		_, waits := s.ids.waiting[id]
		if _, lost := s.ids.missing[id]; waits || lost {
			s.ids.strikeOff(id)
		}
	}
	s.cancelTail()
}

// TailNeeded reports whether the tail under way still has something to look for.
func (s *Scheduler) TailNeeded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tailForced || s.searching(s.tailPlanned)
}

// ToStrikeOff returns the ids that are to be struck off the ledger's list. It returns
// them again until [Scheduler.StruckOff] confirms them.
func (s *Scheduler) ToStrikeOff() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.ids.toStrikeOff))
}

// Counts returns how many ids are waited for and how many are missing.
func (s *Scheduler) Counts() (waiting, missing int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids.waiting), len(s.ids.missing)
}

// NextTry returns when a pass that failed is made again; zero if none failed.
func (s *Scheduler) NextTry() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.failed {
	case audit.Reconcile:
		return s.reconcileAt
	case audit.Tail:
		return s.nextTail
	default:
		return time.Time{}
	}
}

// Missing returns at most n of the ids that are missing, with when they were announced.
func (s *Scheduler) Missing(n int) (list []audit.Announcement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, at := range s.ids.missing {
		list = append(list, audit.Announcement{ID: id, At: at})
	}
	slices.SortFunc(list, func(a, b audit.Announcement) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.ID, b.ID))
	})
	return list[:min(n, len(list))]
}

// follow repeats tails until Options.Follow has passed since an announcement. s.mu is held.
func (s *Scheduler) follow(now, announced time.Time) {
	if until := announced.Add(s.opts.Follow); until.After(s.followUntil) && until.After(now) {
		s.followUntil = until
	}
}

// searching reports whether there is a reason for a tail that is planned for a time. It
// compares that time, not the clock: timers fire late, and tails wait for the one before,
// so by the clock the last tail of a search would never be made. s.mu is held.
func (s *Scheduler) searching(planned time.Time) bool {
	return s.tailRequested || !planned.After(s.searchUntil())
}

// searchUntil returns the time after which no further tail is planned, unless another
// trigger comes. s.mu is held.
func (s *Scheduler) searchUntil() time.Time {
	if len(s.ids.waiting) > 0 {
		return later(s.repeatUntil, s.followUntil)
	}
	return s.repeatUntil
}

// requestTail is like [Scheduler.RequestTail]. s.mu is held.
func (s *Scheduler) requestTail(now, at time.Time) {
	s.tailRequested = true
	s.tailSoon(now, at.Sub(now))
}

// tailSoon plans a tail after a wait, or as soon as the last one allows. s.mu is held.
func (s *Scheduler) tailSoon(now time.Time, wait time.Duration) {
	at := now.Add(wait)
	if earliest := s.lastTail.Add(minInterval); earliest.After(at) {
		at = earliest
	}
	s.interval = minInterval
	if s.nextTail.IsZero() || at.Before(s.nextTail) {
		s.nextTail = at
	}
}

// cancelTail drops the planned tail if nothing is left to look for. s.mu is held.
func (s *Scheduler) cancelTail() {
	if !s.searching(s.nextTail) {
		s.nextTail = time.Time{}
	}
}

// planRepeat plans the tail after the one that begins now. s.mu is held.
func (s *Scheduler) planRepeat(now time.Time) {
	s.lastTail, s.nextTail = now, time.Time{}
	left := s.searchUntil().Sub(now)
	if left < minInterval {
		s.interval = minInterval
		return
	}
	s.nextTail = now.Add(min(s.interval, left))
	s.interval = min(s.interval*3/2, maxInterval)
	if now.Sub(s.lastNotified) < promptFor {
		s.interval = min(s.interval, promptInterval)
	}
}
