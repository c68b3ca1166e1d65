package cloudtrail

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Limits of a call.
const (
	maxEvents = 100
	maxBody   = 1_000_000 // bytes of the whole body; AWS says "under 1 MB"
)

// maxText is how much of a batch's text is kept for the next one, in bytes.
const maxText = 192 << 10

// batch is what one call carries: the events of entries that follow each other.
// All of it is used again, once the call is over: nothing reads an event after
// that (see payload).
type batch struct {
	writer writer
	text   []byte         // of the events, one after the other
	index  map[string]int // id → place in events
	events []AuditEvent
	fields [maxEvents]fields // what events points to
}

// fields of an event.
type fields struct{ id, data, checksum string }

// Put delivers entries, in as many calls as AWS's limits need, one after the
// other, each tried once. It waits for nothing but its turn under the rate.
//
// There is a verdict for each entry, whatever the error: what is Accepted is
// durable at AWS. What is Refused would be refused again. Anything else is
// Unresolved and has to be put again: an event's own passing failure is not an
// error, a call's is. A *audit.SettingsError means that a person has to change
// something; nothing was made a dead letter for it.
//
// An entry that stands twice in entries is put twice, in two calls.
func (s *Sink) Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	verdicts := make([]audit.Verdict, len(entries))
	b := s.batches.Get().(*batch)
	defer s.release(b)
	var failure error
	for done := 0; done < len(entries); {
		s.fill(b, entries[done:])
		n := len(b.events)
		err := s.send(ctx, b, 0, n, verdicts[done:done+n], time.Now())
		done += n
		if err == nil {
			continue
		}
		stop := stopsPut(err)
		if failure == nil || stop {
			failure = err
		}
		if stop {
			break
		}
	}
	if failure != nil {
		return verdicts, fmt.Errorf("putting %d entries into CloudTrail: %w", len(entries), failure)
	}
	return verdicts, nil
}

func (s *Sink) release(b *batch) {
	b.clear()
	if cap(b.text) > maxText {
		b.text = nil
	}
	s.batches.Put(b)
}

func (b *batch) clear() {
	clear(b.fields[:len(b.events)])
	clear(b.index)
	b.events = b.events[:0]
}

// fill maps entries to events until one more would be too many, too large, or
// have an id that is there already. It takes at least one.
func (s *Sink) fill(b *batch, entries []audit.Entry) {
	b.clear()
	entries = entries[:min(len(entries), maxEvents)]
	b.text = slices.Grow(b.text[:0], textSize(entries))
	most := 0 // of the body, if every byte had to be escaped
	size := 0 // of the body, once it might be too large
	w := &b.writer
	for i := range entries {
		id := eventID(&entries[i])
		if b.index[id] = i; len(b.index) == i { // it was there already
			b.index[id] = slices.IndexFunc(b.events, func(e AuditEvent) bool { return *e.Id == id })
			break
		}
		w.reset()
		s.mapping.write(w, &entries[i])
		if most += eventSize(id, 2*len(w.buf)); most > maxBody-bodySize {
			if size == 0 {
				size = b.size()
			}
			if size += eventSize(id, escapedSize(w.buf)); i > 0 && size > maxBody {
				break
			}
		}
		f := &b.fields[i]
		f.id = id
		f.data, f.checksum = b.seal(w)
		b.events = append(b.events, AuditEvent{Id: &f.id, EventData: &f.data, EventDataChecksum: &f.checksum})
	}
}

// textSize is about what the events of a call take, from above: a buffer that
// grows by doubling would leave more garbage than the events are long.
func textSize(entries []audit.Entry) int {
	const around = 350 // keys, checksum, and what Size does not count
	n := 0
	for i := range entries {
		if n += around + min(entries[i].Size(), maxParameters+maxAdditional); n >= maxBody {
			return maxBody
		}
	}
	return n
}

// seal moves an event out of the writer into the batch's text, with its checksum.
func (b *batch) seal(w *writer) (data, checksum string) {
	sum := sha256.Sum256(w.buf)
	at, n := len(b.text), len(w.buf)
	b.text = append(b.text, w.buf...)
	b.text = base64.StdEncoding.AppendEncode(b.text, sum[:])
	// The text is not changed until the batch is used again: a string of it needs no copy.
	both := unsafe.String(&b.text[at], len(b.text)-at) //nolint:gosec // the text is never empty, and outlives the call
	return both[:n], both[n:]
}

// eventSize is what an event takes in a body, whose data takes so many bytes.
func eventSize(id string, data int) int {
	const others = len(eventOpen) + len(eventData) + len(eventSum) + checksumSize + len(eventClose) + len(",")
	return others + len(id) + data
}

// size is that of the body for the events so far.
func (b *batch) size() int {
	n := bodySize + escapedSize(b.text)
	for _, e := range b.events {
		n += eventSize(*e.Id, -checksumSize) // which the text holds as well
	}
	return n
}

// send puts the events from lo to hi, and says in verdicts (of the same length)
// what became of them. began is when the batch was first sent, whole.
func (s *Sink) send(ctx context.Context, b *batch, lo, hi int, verdicts []audit.Verdict, began time.Time) error {
	out, err := s.call(ctx, b.events[lo:hi])
	if err == nil {
		s.taken.Store(time.Now().UnixNano())
		return settle(b, lo, hi, out, verdicts)
	}
	f := classify(err, s.endpoint)
	if f.kind == content {
		switch n := hi - lo; {
		case n == 1:
			verdicts[0] = audit.Verdict{Status: audit.Rejected, Code: f.code, Reason: f.reason}
			return nil
		case n <= alike:
			return s.parts(ctx, b, lo, verdicts, began, [2]int{0, n / 2}, [2]int{n / 2, n})
		}
		return s.narrow(ctx, b, lo, hi, verdicts, began)
	}
	for i := range verdicts {
		verdicts[i] = audit.Verdict{Code: f.code, Reason: f.reason}
	}
	if f.kind == settings {
		return audit.Settings(err, f.hint)
	}
	return err
}

// alike is how many events AWS must refuse one by one, of a call that it refused,
// for that to look like the state of an account rather than the events'.
const alike = 3

// narrow finds out for which of its events a call was refused. It puts three of
// them by themselves first. If AWS refuses each of those, and has accepted nothing
// else since the batch was first sent, an error of a kind that is not known yet may well be about the
// account, the channel or a quota: nothing is made a dead letter then.
func (s *Sink) narrow(ctx context.Context, b *batch, lo, hi int, verdicts []audit.Verdict, began time.Time) error {
	mid, last := (hi-lo)/2, hi-lo-1
	failure := s.parts(ctx, b, lo, verdicts, began, [2]int{mid, mid + 1}, [2]int{last, last + 1}, [2]int{0, 1})
	if failure != nil && stopsPut(failure) {
		return failure
	}
	why := verdicts[0]
	same := func(v audit.Verdict) bool { return v.Status == audit.Rejected && v.Code == why.Code }
	if same(why) && same(verdicts[mid]) && same(verdicts[last]) && s.taken.Load() < began.UnixNano() {
		for i := range verdicts {
			verdicts[i] = audit.Verdict{Code: why.Code, Reason: why.Reason}
		}
		return audit.Settingsf("nothing was made a dead letter for it: see what the code says of the account, the channel and its quotas, mend that and run again",
			"CloudTrail refuses every event alike: %s: %s", why.Code, why.Reason)
	}
	return cmp.Or(failure, s.parts(ctx, b, lo, verdicts, began, [2]int{1, mid}, [2]int{mid + 1, last}))
}

// parts sends parts of the events from lo on, each by itself.
func (s *Sink) parts(ctx context.Context, b *batch, lo int, verdicts []audit.Verdict, began time.Time, parts ...[2]int) error {
	var failure error
	for _, p := range parts {
		if p[0] == p[1] {
			continue
		}
		err := s.send(ctx, b, lo+p[0], lo+p[1], verdicts[p[0]:p[1]], began)
		if err != nil && stopsPut(err) {
			return err
		}
		failure = cmp.Or(failure, err)
	}
	return failure
}

// call makes a call, and once more with fresh credentials if AWS did not take
// those that it was signed with.
func (s *Sink) call(ctx context.Context, events []AuditEvent) (*PutAuditEventsOutput, error) {
	for fresh := false; ; fresh = true {
		if err := s.turns.wait(ctx, s.urgent); err != nil {
			return nil, &turnError{err}
		}
		out, err := s.client.PutAuditEvents(ctx, &PutAuditEventsInput{
			AuditEvents: events, ChannelArn: &s.channelARN, ExternalId: s.externalID,
		})
		if err == nil || fresh || !staleCredentials(err) {
			return out, err
		}
		s.credentials.provider.Invalidate()
	}
}

// turnError: the context ended, or would have, before it was this call's turn.
type turnError struct{ err error }

func (e *turnError) Error() string { return "waiting for a turn under the rate: " + e.err.Error() }
func (e *turnError) Unwrap() error { return e.err }

// settle reads out of an answer what became of the events from lo to hi.
func settle(b *batch, lo, hi int, out *PutAuditEventsOutput, verdicts []audit.Verdict) error {
	// at is where the event probably is: answers mostly keep the order.
	find := func(id *string, at int) *audit.Verdict {
		if id == nil {
			return nil
		}
		if at < hi && *b.events[at].Id == *id {
			return &verdicts[at-lo]
		}
		i, ok := b.index[*id]
		if !ok || i < lo || i >= hi {
			return nil // not asked for: nothing follows from it
		}
		return &verdicts[i-lo]
	}
	for i, e := range out.Successful {
		if v := find(e.Id, lo+i); v != nil {
			v.Status = audit.Accepted
		}
	}
	var wrong error
	for i, e := range out.Failed {
		v := find(e.Id, lo+i)
		if v == nil {
			continue
		}
		code, reason := clean(aws.ToString(e.ErrorCode)), clean(aws.ToString(e.ErrorMessage))
		hint, setting := eventSettings[code]
		switch {
		case v.Status == audit.Accepted:
			// Which is true cannot be known: rather twice than not at all.
			*v = audit.Verdict{Code: "Contradiction", Reason: "the answer lists the event as accepted and as failed"}
		case setting:
			*v = audit.Verdict{Code: code, Reason: reason}
			wrong = audit.Settingsf(hint, "CloudTrail refused an event: %s: %s", code, reason)
		case code == "" || healingCode(code):
			*v = audit.Verdict{Code: code, Reason: reason}
		default:
			*v = audit.Verdict{Status: audit.Rejected, Code: code, Reason: reason}
		}
	}
	for i := range verdicts {
		if v := &verdicts[i]; v.Status == audit.Retryable && v.Code == "" {
			v.Code = "NoAnswer"
			v.Reason = "the answer lists the event neither as accepted nor as failed"
		}
	}
	return wrong
}

// stopsPut tells whether the calls that are still to be made would fare no
// better. An answer of the service that may be about these very events (a 5xx,
// or one that cannot be read) does not stop the others.
func stopsPut(err error) bool {
	var s *audit.SettingsError
	return errors.As(err, &s) || !classify(err, "").answered
}
