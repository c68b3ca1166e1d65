package delivery

import (
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// batch is entries that are put together.
type batch struct {
	entries []audit.Entry
	// slot is the slot of every entry if the batch has not been put before; past is nil
	// then. Otherwise past has the slot of each entry.
	slot *slot
	past []pastPuts

	patience      time.Duration // for calls that fail while the destination accepts other batches
	patienceStart time.Time
	comparable    time.Time // if others were accepted since then, its failures may be its own fault
	failedAt      int       // number of calls that had been made when its last one failed
	suspect       bool      // others were accepted between two of its failures, so it is at fault and must not close the gate
}

// pastPuts is the outcome of earlier puts of an entry.
type pastPuts struct {
	slot     *slot // in reading order; nil for an entry that an earlier pass deferred
	puts     int
	firstPut time.Time // zero for an entry that an earlier pass deferred
	last     audit.Verdict
	deferred time.Time // when an earlier pass deferred it; zero if none did
}

func (p *pastPuts) isDeferred() bool { return !p.deferred.IsZero() }

func newBatch(entries []audit.Entry, s *slot, patience time.Duration) *batch {
	now := time.Now()
	return &batch{entries: entries, slot: s, patienceStart: now, comparable: now, patience: patience}
}

// of returns the past of an entry.
func (b *batch) of(i int) pastPuts {
	if b.past == nil {
		return pastPuts{slot: b.slot, firstPut: b.patienceStart}
	}
	return b.past[i]
}

// part returns a batch of the entries from one index to another.
func (b *batch) part(from, to int) *batch {
	p := *b
	p.entries = b.entries[from:to:to]
	if b.past != nil {
		p.past = b.past[from:to:to]
	}
	return &p
}

// decision is what follows from the verdicts of a call.
type decision struct {
	records  []audit.Record
	accepted []audit.Entry
	left     *batch // entries that have no outcome; nil if there are none
	dead     []*audit.Undelivered
}

// decide turns the verdicts on a batch into records. failure is the call's error.
func (d *Delivery) decide(b *batch, verdicts []audit.Verdict, failure error) decision {
	out := decision{records: make([]audit.Record, 0, len(b.entries)), accepted: b.entries[:0:0]}
	for i, v := range verdicts {
		e, past := &b.entries[i], b.of(i)
		past.puts++
		switch {
		case v.Status == audit.Accepted:
			out.records = append(out.records, d.newRecord(e, audit.Delivered, nil))
			if len(out.accepted) == i { // as a rule all of them are: no need for a copy
				out.accepted = b.entries[: i+1 : i+1]
			} else {
				out.accepted = append(out.accepted, *e)
			}
		case v.Status == audit.Rejected:
			past.last = v
			out.addDeadLetter(d, e, undelivered(e, audit.Dead, past))
		case failure == nil && past.isDeferred() && time.Since(past.deferred) >= deadAfter:
			out.addDeadLetter(d, e, overdue(e, past))
		default:
			past.last = explained(v, failure)
			out.leave(b, i, past)
		}
	}
	return out
}

// addDeadLetter adds the record of a dead letter.
func (o *decision) addDeadLetter(d *Delivery, e *audit.Entry, u *audit.Undelivered) {
	o.dead, o.records = append(o.dead, u), append(o.records, d.newRecord(e, audit.Dead, u))
}

// leave adds an entry of a batch to those that have no outcome.
func (o *decision) leave(b *batch, i int, past pastPuts) {
	if o.left == nil {
		rest := *b
		rest.entries, rest.past = nil, nil
		o.left = &rest
	}
	o.left.entries, o.left.past = append(o.left.entries, b.entries[i]), append(o.left.past, past)
}

// explained returns a verdict with a code and a reason.
func explained(v audit.Verdict, failure error) audit.Verdict {
	if v.Code == "" {
		v.Code = "NoAnswer"
	}
	switch {
	case v.Reason != "":
	case failure != nil:
		v.Reason = failure.Error()
	default:
		v.Reason = "the destination said nothing about the entry"
	}
	return v
}

// newRecord returns the ledger's record of an entry.
func (d *Delivery) newRecord(e *audit.Entry, o audit.Outcome, u *audit.Undelivered) audit.Record {
	return audit.Record{ID: e.ID, Timestamp: e.Timestamp, Retention: d.opts.Retention(e), Outcome: o, Undelivered: u}
}

// undelivered returns the undelivered entry that the ledger stores.
func undelivered(e *audit.Entry, o audit.Outcome, past pastPuts) *audit.Undelivered {
	since := time.Now().UTC()
	if past.isDeferred() {
		since = past.deferred
	}
	return &audit.Undelivered{Entry: *e, Outcome: o, Code: past.last.Code, Reason: past.last.Reason, Since: since, Tries: past.puts}
}

// overdue returns the dead letter of an entry that was deferred for too long.
func overdue(e *audit.Entry, past pastPuts) *audit.Undelivered {
	u := undelivered(e, audit.Dead, past)
	u.Reason = "deferred for too long: " + u.Reason
	return u
}
