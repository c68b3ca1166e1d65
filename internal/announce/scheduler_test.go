package announce

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

var epoch = time.Unix(1_700_000_000, 0)

const ms = time.Millisecond

func newScheduler() *Scheduler {
	return New(Options{Debounce: 50 * ms, Schedule: time.Hour})
}

func entries(ids ...string) (list []audit.Entry) {
	for _, id := range ids {
		list = append(list, audit.Entry{RequestID: id})
	}
	return list
}

// started fails the test unless Next starts a pass now.
func started(t *testing.T, s *Scheduler, now time.Time, want audit.PassKind) {
	t.Helper()
	if start, wake := s.Next(now); start.Kind != want {
		t.Fatalf("started %s, want %s; next at %s", start.Kind, want, wake.Sub(now))
	}
}

// run lets time pass, with passes that take no time, and returns when tails began.
func run(s *Scheduler, from time.Time, d time.Duration) (tails []time.Time) {
	for now := from; now.Before(from.Add(d)); now = now.Add(10 * ms) {
		if start, _ := s.Next(now); start.Kind != audit.NoPass {
			if start.Kind == audit.Tail {
				tails = append(tails, now)
			}
			s.Ended(now, start.Kind, Result{Began: now})
		}
	}
	return tails
}

func TestPollsUntilTheIDHasShownUp(t *testing.T) {
	s := newScheduler()
	s.Notify(epoch, []string{"a"})
	tails := run(s, epoch, 900*ms)
	if len(tails) < 5 || tails[0].Sub(epoch) != 50*ms {
		t.Fatalf("tails at %v", tails)
	}
	for i := 1; i < len(tails); i++ {
		if gap := tails[i].Sub(tails[i-1]); gap < minInterval || gap > promptInterval {
			t.Errorf("tails %d and %d are %s apart", i-1, i, gap)
		}
	}
	now := epoch.Add(900 * ms)
	s.Seen(entries("x", "a"))
	if tails := run(s, now, time.Minute); len(tails) != 0 {
		t.Errorf("%d tails after the id had shown up", len(tails))
	}
	if ago := s.Delivered(now.Add(100*ms), entries("a", "x")); !slices.Equal(ago, []time.Duration{time.Second}) {
		t.Errorf("delivered %v ago", ago)
	}
}

func TestAnIDThatNeverShowsUpIsMissing(t *testing.T) {
	s := newScheduler()
	s.Notify(epoch, []string{"a"})
	tails := run(s, epoch, 2*time.Minute)
	if last := tails[len(tails)-1]; len(tails) > 30 || last.Sub(epoch) > MissingAfter {
		t.Errorf("%d tails, the last after %s", len(tails), last.Sub(epoch))
	}
	if lost := s.Expire(epoch.Add(MissingAfter)); !slices.Equal(lost, []string{"a"}) {
		t.Errorf("missing %v", lost)
	}
	if waiting, missing := s.Counts(); waiting != 0 || missing != 1 {
		t.Errorf("waiting %d, missing %d", waiting, missing)
	}
	s.Seen(entries("a")) // late after all
	if ids := s.ToStrikeOff(); !slices.Equal(ids, []string{"a"}) {
		t.Errorf("to strike off %v", ids)
	}
}

// A host that must not be held polls for a few seconds only, makes the last tail that was
// planned, however late its timer fires, and does not wait for one that would come later.
func TestFollow(t *testing.T) {
	const follow, late = 3 * time.Second, time.Microsecond
	for _, ids := range [][]string{{"a"}, nil} {
		for _, took := range []time.Duration{0, 200 * ms, 900 * ms} {
			s := New(Options{Follow: follow})
			s.Notify(epoch, ids)
			now, last := epoch, time.Duration(0)
			for at := s.Planned(now); !at.IsZero(); at = s.Planned(now) {
				if last = at.Sub(epoch); last > follow {
					t.Fatalf("%v, tails of %s: a tail is planned at %s", ids, took, last)
				}
				if at.After(now) {
					now = at.Add(late)
				}
				started(t, s, now, audit.Tail)
				if !s.TailNeeded() {
					t.Errorf("%v, tails of %s: the tail at %s is not needed", ids, took, last)
				}
				began := now
				now = now.Add(took)
				s.Ended(now, audit.Tail, Result{Began: began})
			}
			if last < follow-minInterval {
				t.Errorf("%v, tails of %s: the last one is planned at %s", ids, took, last)
			}
			if waiting, _ := s.Counts(); waiting != len(ids) {
				t.Errorf("%d ids are waited for", waiting)
			}
		}
	}
}

// The last tail is not made once the log has shown what it would look for, and a host does
// not wait for one that a log without order delays for too long.
func TestLastTailIsDropped(t *testing.T) {
	for name, r := range map[string]Result{"seen": {}, "without order": {Unordered: true}} {
		s := New(Options{Follow: 3 * time.Second})
		s.Notify(epoch, []string{"a"})
		started(t, s, epoch, audit.Tail)
		if !r.Unordered {
			s.Seen(entries("a"))
		}
		r.Began = epoch
		s.Ended(epoch.Add(time.Second), audit.Tail, r)
		if at := s.Planned(epoch.Add(time.Second)); !at.IsZero() {
			t.Errorf("%s: a tail is planned at %s", name, at.Sub(epoch))
		}
	}
}

// A thousand requests in a second, whose rows Kong writes a tenth of a second later.
func TestABurstCostsAHandfulOfPolls(t *testing.T) {
	s := newScheduler()
	polls := 0
	var visible []string
	for now := epoch; now.Before(epoch.Add(3 * time.Second)); now = now.Add(ms) {
		i := int(now.Sub(epoch) / ms)
		if i < 1000 {
			s.Notify(now, []string{fmt.Sprint("r", i)})
		}
		if i >= 100 && i < 1100 {
			visible = append(visible, fmt.Sprint("r", i-100))
		}
		if start, _ := s.Next(now); start.Kind == audit.Tail {
			polls++
			s.Seen(entries(visible...))
			s.Ended(now, audit.Tail, Result{Began: now})
		}
	}
	if waiting, _ := s.Counts(); polls > 20 || waiting > 0 {
		t.Errorf("%d polls, %d ids are waited for", polls, waiting)
	}
}

// The ledger's list is on its way while an id is announced.
func TestAnIDThatIsAnnouncedWhileTheListIsReadIsKept(t *testing.T) {
	s := newScheduler()
	s.Notify(epoch.Add(-time.Second), []string{"seen elsewhere"})
	began := epoch
	s.Notify(epoch.Add(5*ms), []string{"a"})
	s.Listed(epoch.Add(10*ms), began, nil)
	if waiting, _ := s.Counts(); waiting != 1 {
		t.Errorf("%d ids are waited for", waiting)
	}
	if tails := run(s, epoch.Add(10*ms), time.Second); len(tails) == 0 {
		t.Error("no poll")
	}
}

// The list was read before an id was struck off it.
func TestAnIDThatWasStruckOffIsNotTakenFromAnOldList(t *testing.T) {
	s := newScheduler()
	s.Notify(epoch, []string{"a"})
	began := epoch.Add(10 * ms)
	s.Seen(entries("a"))
	list := []audit.Announcement{{ID: "a", At: epoch}}
	s.Listed(epoch.Add(25*ms), began, list)
	s.StruckOff(epoch.Add(30*ms), s.ToStrikeOff())
	s.Listed(epoch.Add(40*ms), began, list)
	if waiting, missing := s.Counts(); waiting+missing != 0 {
		t.Errorf("waiting %d, missing %d", waiting, missing)
	}
}

func TestSeenIDsStayUntilTheLedgerHasConfirmed(t *testing.T) {
	s := newScheduler()
	s.Notify(epoch, []string{"a"})
	s.Seen(entries("a"))
	for range 3 { // the ledger fails
		if ids := s.ToStrikeOff(); !slices.Equal(ids, []string{"a"}) {
			t.Fatalf("to strike off %v", ids)
		}
	}
	s.StruckOff(epoch, []string{"a"})
	if ids := s.ToStrikeOff(); len(ids) != 0 {
		t.Errorf("to strike off %v", ids)
	}
}

// An id whose time runs out while the ledger's list is on its way is reported as well.
func TestAnIDThatTurnsMissingWhileTheListIsReadIsReported(t *testing.T) {
	s := newScheduler()
	at := epoch.Add(50 * ms) // the ledger notes it first
	s.Notify(at, []string{"a"})
	for _, now := range []time.Time{epoch.Add(MissingAfter), at.Add(MissingAfter)} {
		s.Listed(now, now.Add(-time.Second), []audit.Announcement{{ID: "a", At: epoch}})
	}
	if lost := s.Expire(at.Add(MissingAfter)); !slices.Equal(lost, []string{"a"}) {
		t.Errorf("missing are %q", lost)
	}
}

// Each id of a list keeps the time of its own announcement.
func TestListedIDsKeepTheirTimes(t *testing.T) {
	s := newScheduler()
	s.Listed(epoch, epoch, []audit.Announcement{
		{ID: "old", At: epoch.Add(-29 * time.Second)}, {ID: "new", At: epoch.Add(-time.Second)}, {ID: "gone", At: epoch.Add(-time.Minute)},
	})
	if waiting, missing := s.Counts(); waiting != 2 || missing != 1 {
		t.Errorf("waiting %d, missing %d", waiting, missing)
	}
	if lost := s.Expire(epoch.Add(2 * time.Second)); !slices.Equal(lost, []string{"old"}) {
		t.Errorf("missing %v", lost)
	}
	if tails := run(s, epoch, time.Second); len(tails) == 0 {
		t.Error("no poll for what another relay noted")
	}
}

// Own reads of any relay are not worth a poll.
func TestIgnoredIDsCauseNoPoll(t *testing.T) {
	s := newScheduler()
	s.Notify(epoch, []string{"own"})
	now := epoch.Add(50 * ms)
	started(t, s, now, audit.Tail)
	if ids := s.MaybeOwnReads(now); !slices.Equal(ids, []string{"own"}) {
		t.Fatalf("unsettled %v", ids)
	}
	s.Ignore([]string{"own"})
	if s.TailNeeded() {
		t.Error("the tail is still needed")
	}
	s.Ended(now, audit.Tail, Result{Began: now})
	if tails := run(s, now, time.Minute); len(tails) != 0 {
		t.Errorf("%d tails", len(tails))
	}
	s.Notify(now, nil)
	started(t, s, now.Add(time.Second), audit.Tail)
	if !s.TailNeeded() {
		t.Error("a tail that was asked for is not needed")
	}
}

// A trigger during the back-off after an outage shows that Kong answers.
func TestATriggerBringsARetryForward(t *testing.T) {
	for _, failing := range []audit.PassKind{audit.Tail, audit.Reconcile} {
		t.Run(string(failing), func(t *testing.T) {
			s := newScheduler()
			now := epoch
			if failing == audit.Reconcile {
				s.RequestReconcile(now, false)
			} else {
				s.RequestTail(now, now)
			}
			var waits []time.Duration
			for range 6 { // an outage of about two minutes
				start, _ := s.Next(now)
				if start.Kind != failing {
					t.Fatalf("started %s", start.Kind)
				}
				s.Ended(now, failing, Result{Began: now, Failed: true})
				_, wake := s.Next(now)
				waits = append(waits, wake.Sub(now))
				now = wake
			}
			if waits[0] != firstRetry || waits[5] != 32*firstRetry {
				t.Errorf("retries after %v", waits)
			}
			started(t, s, now, failing)
			s.Ended(now, failing, Result{Began: now, Failed: true})
			at := now.Add(10 * time.Second)
			s.Notify(at, []string{"a"})
			if _, wake := s.Next(at); wake.Sub(at) != 50*ms {
				t.Errorf("the retry is %s after the trigger", wake.Sub(at))
			}
			started(t, s, at.Add(50*ms), failing)
			// A trigger right after a failure does not make the relay try without pause.
			s.Ended(at.Add(60*ms), failing, Result{Began: at, Failed: true})
			s.Notify(at.Add(61*ms), []string{"b"})
			if _, wake := s.Next(at.Add(61 * ms)); wake.Sub(at.Add(60*ms)) != retryGap {
				t.Errorf("the retry is %s after the failure", wake.Sub(at.Add(60*ms)))
			}
		})
	}
}

func TestReconcilesOnSchedule(t *testing.T) {
	s := newScheduler()
	s.RequestReconcile(epoch, false)
	started(t, s, epoch, audit.Reconcile)
	s.Ended(epoch.Add(time.Minute), audit.Reconcile, Result{Began: epoch})
	if _, wake := s.Next(epoch.Add(time.Minute)); wake.Sub(epoch) != time.Hour {
		t.Fatalf("the next one is after %s", wake.Sub(epoch))
	}
	// Another relay made one half an hour ago.
	now := epoch.Add(time.Hour)
	started(t, s, now, audit.Reconcile)
	s.Ended(now, audit.Reconcile, Result{Began: now, Reconciled: now.Add(-30 * time.Minute)})
	started(t, s, now, audit.Tail) // in its place
	s.Ended(now, audit.Tail, Result{Began: now})
	if _, wake := s.Next(now); wake.Sub(now) != 30*time.Minute {
		t.Errorf("the next one is after %s", wake.Sub(now))
	}
}

// Another relay's lease is taken over as soon as it can have run out, and nobody requests reruns for that.
func TestStandby(t *testing.T) {
	for _, p := range []audit.PassKind{audit.Tail, audit.Reconcile} {
		t.Run(string(p), func(t *testing.T) {
			s := newScheduler()
			if p == audit.Tail {
				s.RequestTail(epoch, epoch)
			} else {
				s.RequestReconcile(epoch, false)
			}
			started(t, s, epoch, p)
			s.Ended(epoch, p, Result{Began: epoch, LeaseHeld: true, LeaseLeft: 8 * time.Second})
			start, wake := s.Next(epoch)
			if start.Kind != audit.NoPass || wake.Sub(epoch) != 8*time.Second {
				t.Fatalf("%v, next after %s", start, wake.Sub(epoch))
			}
			if start, _ := s.Next(wake); start.Kind != p || !start.Standby {
				t.Errorf("%+v", start)
			}
		})
	}
}

func TestATailBesideAReconcile(t *testing.T) {
	s := newScheduler()
	s.RequestReconcile(epoch, false)
	started(t, s, epoch, audit.Reconcile)
	s.Notify(epoch, []string{"a"})
	now := epoch.Add(50 * ms)
	started(t, s, now, audit.Tail)
	started(t, s, now.Add(time.Second), audit.NoPass) // one at a time
	// The log has no order: the tail must wait for the reconcile's end.
	s.Ended(now, audit.Tail, Result{Began: now, Blocked: true})
	if start, wake := s.Next(now); start.Kind != audit.NoPass || wake.Sub(now) < time.Second {
		t.Errorf("started %s, next after %s", start.Kind, wake.Sub(now))
	}
	now = now.Add(time.Second)
	s.Ended(now, audit.Reconcile, Result{Began: epoch})
	started(t, s, now, audit.Tail)
	// Which reads everything, so the next one may not follow at once.
	s.Ended(now.Add(2*time.Second), audit.Tail, Result{Began: now, Unordered: true})
	if start, wake := s.Next(now.Add(2 * time.Second)); start.Kind != audit.NoPass || wake.Sub(now) != 20*time.Second {
		t.Errorf("started %s, next after %s", start.Kind, wake.Sub(now))
	}
}

func TestARerunBringsATail(t *testing.T) {
	s := newScheduler()
	s.RequestTail(epoch, epoch)
	started(t, s, epoch, audit.Tail)
	s.Ended(epoch.Add(ms), audit.Tail, Result{Began: epoch, Rerun: true})
	if tails := run(s, epoch.Add(ms), time.Minute); len(tails) != 1 || tails[0].Sub(epoch) > 2*minInterval {
		t.Errorf("tails at %v", tails)
	}
}

// An entry that its destination does not take at once keeps no later one waiting.
func TestATailBesideATailThatDelivers(t *testing.T) {
	s := newScheduler()
	s.Notify(epoch, []string{"a"})
	now := epoch.Add(50 * ms)
	started(t, s, now, audit.Tail)
	started(t, s, now.Add(time.Second), audit.NoPass) // it reads
	s.TailRead()
	s.Seen(entries("a"))
	s.Notify(now, []string{"b"})
	now = now.Add(time.Second)
	started(t, s, now, audit.Tail)
	s.RequestReconcile(now, false)
	s.Ended(now, audit.Tail, Result{Began: now}) // the second one, which had not read
	s.Seen(entries("b"))
	started(t, s, now.Add(time.Second), audit.NoPass) // a reconcile waits for the first
	s.Ended(now.Add(time.Second), audit.Tail, Result{Began: epoch, LogRead: true})
	started(t, s, now.Add(time.Second), audit.Reconcile)
}
