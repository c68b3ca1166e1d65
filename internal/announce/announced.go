package announce

import (
	"maps"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	// MissingAfter is how long after its announcement an id counts as missing.
	MissingAfter = 30 * time.Second

	forgetAfter  = 24 * time.Hour
	maxWaiting   = 10_000
	struckOffFor = time.Minute     // how long an id that was struck off is remembered
	ownReadTime  = 2 * time.Second // how long another relay may take to note its own read
)

// IsMissing reports whether an id that was announced at the given time and has not shown up
// counts as missing.
func IsMissing(now, announced time.Time) bool { return now.Sub(announced) >= MissingAfter }

// announced holds the ids that triggers named, from the trigger until the entry
// has been delivered and the ledger's list no longer has the id.
type announced struct {
	waiting map[string]waiting   // not in the log yet, for up to MissingAfter
	missing map[string]time.Time // not in the log for longer than that; when they were announced
	// toStrikeOff are ids that the log showed. They stay until the ledger has confirmed
	// that they are off its list.
	toStrikeOff map[string]bool
	// struckOff are ids that the ledger confirmed, and when: a list that was read
	// before may still name them.
	struckOff map[string]time.Time
	// undelivered are ids that the log showed and that were not delivered yet, and when
	// they were announced.
	undelivered map[string]time.Time
}

type waiting struct {
	announced time.Time
	noted     time.Time // when this process learned of it
}

func newAnnounced() announced {
	return announced{
		waiting: map[string]waiting{}, missing: map[string]time.Time{}, toStrikeOff: map[string]bool{},
		struckOff: map[string]time.Time{}, undelivered: map[string]time.Time{},
	}
}

func (a *announced) add(now time.Time, ids []string) {
	for _, id := range ids {
		_, missing := a.missing[id]
		if len(a.waiting) < maxWaiting && !missing && !a.toStrikeOff[id] {
			a.waiting[id] = waiting{announced: now, noted: now}
		}
	}
}

// merge takes over the ledger's list. began is when reading it began. merge returns the
// latest announcement among the ids that are new here.
func (a *announced) merge(now, began time.Time, list []audit.Announcement) (latest time.Time) {
	listed := make(map[string]bool, len(list))
	for _, l := range list {
		listed[l.ID] = true
		w, waits := a.waiting[l.ID]
		switch {
		case a.toStrikeOff[l.ID], !a.struckOff[l.ID].IsZero():
		case waits && !IsMissing(w.noted, l.At): // Expire reports it once it is missing
		case IsMissing(now, l.At):
			delete(a.waiting, l.ID)
			a.missing[l.ID] = l.At
		case !waits && len(a.waiting) < maxWaiting:
			a.waiting[l.ID] = waiting{announced: l.At, noted: now}
			if l.At.After(latest) {
				latest = l.At
			}
		}
	}
	// An id that is no longer listed has been seen by another relay, unless it was
	// announced while the list was on its way.
	for id, w := range a.waiting {
		if !listed[id] && w.noted.Before(began) {
			delete(a.waiting, id)
		}
	}
	for id := range a.missing {
		if !listed[id] {
			delete(a.missing, id)
		}
	}
	return latest
}

// Seen takes entries that the log shows.
func (s *Scheduler) Seen(entries []audit.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &s.ids
	if len(a.waiting)+len(a.missing) == 0 {
		return
	}
	for i := range entries {
		id := entries[i].RequestID
		at, missing := a.missing[id]
		w, waits := a.waiting[id]
		switch {
		case waits:
			at = w.announced
		case !missing:
			continue
		}
		id = strings.Clone(id) // a copy: the id is a part of its page's memory
		a.strikeOff(id)
		if len(a.undelivered) < maxWaiting {
			a.undelivered[id] = at
		}
	}
	s.cancelTail()
}

// strikeOff stops waiting for an id, and has it struck off the ledger's list.
func (a *announced) strikeOff(id string) {
	delete(a.waiting, id)
	delete(a.missing, id)
	a.toStrikeOff[id] = true
}

// Delivered takes entries that were delivered. For each that was announced, it returns
// how long ago it was announced.
func (s *Scheduler) Delivered(now time.Time, entries []audit.Entry) (ago []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	undelivered := s.ids.undelivered
	if len(undelivered) == 0 {
		return nil
	}
	for i := range entries {
		if at, ok := undelivered[entries[i].RequestID]; ok {
			delete(undelivered, entries[i].RequestID)
			ago = append(ago, now.Sub(at))
		}
	}
	return ago
}

// StruckOff confirms that the ledger's list no longer has ids.
func (s *Scheduler) StruckOff(now time.Time, ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if s.ids.toStrikeOff[id] {
			delete(s.ids.toStrikeOff, id)
			s.ids.struckOff[id] = now
		}
	}
}

// Expire makes ids missing that have been waited for too long, and returns them. It
// forgets what is no longer needed.
func (s *Scheduler) Expire(now time.Time) (lost []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &s.ids
	for id, w := range a.waiting {
		if IsMissing(now, w.announced) {
			delete(a.waiting, id)
			a.missing[id] = w.announced
			lost = append(lost, id)
		}
	}
	forget(a.missing, now, forgetAfter)
	forget(a.undelivered, now, forgetAfter)
	forget(a.struckOff, now, struckOffFor)
	s.cancelTail()
	return lost
}

func forget(m map[string]time.Time, now time.Time, after time.Duration) {
	maps.DeleteFunc(m, func(_ string, at time.Time) bool { return now.Sub(at) >= after })
}
