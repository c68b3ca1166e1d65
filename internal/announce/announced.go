package announce

import (
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	// MissingAfter is how long after its announcement an id counts as missing.
	MissingAfter = 30 * time.Second

	forgetAfter   = 24 * time.Hour
	maxWaiting    = 10_000
	struckFor     = time.Minute     // how long an id that was struck off is remembered
	unsettledTime = 2 * time.Second // how long another relay may take to note its own read
)

// announced holds the ids that triggers named, from the trigger until the entry
// has been delivered and the ledger's list no longer has the id.
type announced struct {
	waiting map[string]waiting   // not in the log yet, for up to MissingAfter
	missing map[string]time.Time // for longer; when they were announced
	// seen are ids that the log showed and that must be struck off the ledger's list.
	// They stay until the ledger has confirmed it.
	seen map[string]bool
	// struck are ids that the ledger confirmed, and when: a list that was read
	// before may still name them.
	struck map[string]time.Time
	shown  map[string]time.Time // in the log and not delivered yet; when they were announced
}

type waiting struct {
	announced time.Time
	noted     time.Time // when this process learned of it
}

func newAnnounced() announced {
	return announced{
		waiting: map[string]waiting{}, missing: map[string]time.Time{}, seen: map[string]bool{},
		struck: map[string]time.Time{}, shown: map[string]time.Time{},
	}
}

// add notes ids that were announced now.
func (a *announced) add(now time.Time, ids []string) {
	for _, id := range ids {
		_, missing := a.missing[id]
		if len(a.waiting) < maxWaiting && !missing && !a.seen[id] {
			a.waiting[id] = waiting{announced: now, noted: now}
		}
	}
}

// merge takes over the ledger's list, whose reading began at a time. It returns the
// latest announcement among the ids that are new here.
func (a *announced) merge(now, began time.Time, list []audit.Announcement) (latest time.Time) {
	listed := make(map[string]bool, len(list))
	for _, l := range list {
		listed[l.ID] = true
		_, waits := a.waiting[l.ID]
		switch {
		case a.seen[l.ID], !a.struck[l.ID].IsZero():
		case now.Sub(l.At) >= MissingAfter:
			delete(a.waiting, l.ID)
			a.missing[l.ID] = l.At
		case !waits && len(a.waiting) < maxWaiting:
			a.waiting[l.ID] = waiting{announced: l.At, noted: now}
			if l.At.After(latest) {
				latest = l.At
			}
		}
	}
	// What is not on the list another relay has seen, unless it was announced while
	// the list was on its way.
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

// show notes entries that the log shows.
func (a *announced) show(entries []audit.Entry) {
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
		a.strike(id)
		if len(a.shown) < maxWaiting {
			a.shown[id] = at
		}
	}
}

// strike stops waiting for an id, and has it struck off the ledger's list.
func (a *announced) strike(id string) {
	delete(a.waiting, id)
	delete(a.missing, id)
	a.seen[id] = true
}

// deliver returns how long ago those of the entries were announced that were.
func (a *announced) deliver(now time.Time, entries []audit.Entry) (ago []time.Duration) {
	if len(a.shown) == 0 {
		return nil
	}
	for i := range entries {
		if at, ok := a.shown[entries[i].RequestID]; ok {
			delete(a.shown, entries[i].RequestID)
			ago = append(ago, now.Sub(at))
		}
	}
	return ago
}

// confirm notes that the ledger's list no longer has ids.
func (a *announced) confirm(now time.Time, ids []string) {
	for _, id := range ids {
		if a.seen[id] {
			delete(a.seen, id)
			a.struck[id] = now
		}
	}
}

// expire moves ids that have been waited for too long to the missing ones, which
// it returns, and forgets what is of no use any more.
func (a *announced) expire(now time.Time) (lost []string) {
	for id, w := range a.waiting {
		if now.Sub(w.announced) >= MissingAfter {
			delete(a.waiting, id)
			a.missing[id] = w.announced
			lost = append(lost, id)
		}
	}
	forget(a.missing, now, forgetAfter)
	forget(a.shown, now, forgetAfter)
	forget(a.struck, now, struckFor)
	return lost
}

func forget(m map[string]time.Time, now time.Time, after time.Duration) {
	for id, at := range m {
		if now.Sub(at) >= after {
			delete(m, id)
		}
	}
}
