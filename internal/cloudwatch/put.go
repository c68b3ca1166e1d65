package cloudwatch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
	"github.com/kong-cloudtrail/relay/internal/verdict"
)

// event is an entry on its way into a call.
type event struct {
	entry   int // its index in what Put was given
	id      string
	at      int64 // the time that it is filed under, in milliseconds
	message string
}

// put is one call of Put.
type put struct {
	*Destination
	verdicts []audit.Verdict // of each entry
}

// Put tries once to deliver the entries, in as many calls as the limits ask
// for, and returns a verdict for each. An accepted entry is durable at AWS, also
// when the error is not nil. An error ends the put: the entries after it are
// retryable. It is a [*audit.SettingsError] where trying again cannot help.
//
// CloudWatch Logs takes nothing that is older than 14 days or the group's
// retention, and nothing far ahead. Such an entry is filed under the time at
// which it is put; the event keeps its own eventTime.
func (d *Destination) Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	p := &put{d, make([]audit.Verdict, len(entries))}
	now := d.now()
	events := make([]event, len(entries))
	for i := range entries {
		events[i] = event{entry: i, id: entries[i].ID, at: filedAt(entries[i].Timestamp, now)}
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })

	var call []event // never more than one call's worth is held encoded
	size := 0
	for _, e := range events {
		_, data := d.encode(&entries[e.entry])
		if len(data) == 0 || len(data) > maxEventBytes {
			p.verdicts[e.entry] = audit.Verdict{
				Status: audit.Rejected, Code: "InvalidSize",
				Reason: fmt.Sprintf("an event has 1 to %d bytes, this one has %d", maxEventBytes, len(data)),
			}
			continue
		}
		e.message = string(data)
		cost := len(data) + eventOverhead
		if len(call) > 0 && (size+cost > maxCallBytes || len(call) == maxCallEvents ||
			e.at-call[0].at >= maxCallSpan.Milliseconds()) {
			if err := p.send(ctx, call, 0); err != nil && !verdict.IsUndecided(err) {
				return p.verdicts, err
			}
			clear(call)
			call, size = call[:0], 0
		}
		call = append(call, e)
		size += cost
	}
	if len(call) == 0 {
		return p.verdicts, nil
	}
	return p.verdicts, verdict.Settle(p.send(ctx, call, 0), p.verdicts)
}

// filedAt is the time, in milliseconds, under which an entry of a Unix second
// is filed: its own where AWS takes that, else now.
func filedAt(second int64, now time.Time) int64 {
	if second < now.Add(-maxAge).Unix() || second > now.Add(maxAhead).Unix() {
		return now.UnixMilli()
	}
	return second * 1000
}

// send puts one call's worth of events, and in smaller calls what AWS refuses
// for what may be in it. since is the number of the call in which the events were
// first put, together with others; 0 if this is the first.
func (p *put) send(ctx context.Context, events []event, since int64) error {
	call := p.judge.Begin()
	if since == 0 {
		since = call
	}
	rejected, failure := p.putLogEvents(ctx, events)
	if failure == nil {
		return p.taken(ctx, call, events, rejected)
	}
	p.note(events, failure)
	switch {
	case failure.Kind != awscall.Refused && failure.Kind != awscall.TooLarge:
		return p.failed(failure)
	case len(events) > 1:
		return p.narrow(ctx, events, since)
	case failure.Foreign:
		return p.failed(failure)
	}
	v := &p.verdicts[events[0].entry]
	switch p.judge.Refuse(events[0].id, v.Code, since, false) {
	case verdict.Reject:
		v.Status = audit.Rejected
	case verdict.Stop:
		return verdict.Stopped(service.Name, v.Code, v.Reason)
	case verdict.Retry:
		return &verdict.UndecidedError{Destination: service.Name, Code: v.Code, Reason: v.Reason}
	}
	return nil
}

// narrow puts refused events in parts.
func (p *put) narrow(ctx context.Context, events []event, since int64) error {
	var undecided error
	err := verdict.Narrow(len(events), func(lo, hi int) error {
		err := p.send(ctx, events[lo:hi], since)
		if verdict.IsUndecided(err) {
			undecided, err = err, nil
		}
		return err
	})
	return cmp.Or(err, undecided)
}

func (p *put) failed(f *awscall.Failure) error {
	return fmt.Errorf("putting log events into %s: %w", p.group, f.Err())
}

// taken deals with the answer to a call that AWS took. What AWS left out because
// of its time is put once more, under the present: the group's retention may be
// shorter than 14 days, and nothing that Kong still has is too old to keep.
func (p *put) taken(ctx context.Context, call int64, events []event, r rejection) error {
	again := p.settle(call, events, r)
	if len(again) == 0 {
		return nil
	}
	now := p.now().UnixMilli()
	for i := range again {
		again[i].at = now
	}
	call = p.judge.Begin()
	r, failure := p.putLogEvents(ctx, again)
	if failure != nil {
		// Even a refusal leaves these retryable: each was in a call that was taken.
		p.note(again, failure)
		return p.failed(failure)
	}
	if left := p.settle(call, again, r); len(left) > 0 {
		return audit.WithHint(fmt.Errorf("putting log events into %s: %d events are filed under the present time, and AWS calls that %s", p.group, len(left), p.verdicts[left[0].entry].Code),
			"set this machine's clock, by NTP")
	}
	return nil
}

// settle marks the events of a call that was taken, and returns those that AWS
// left out because of their time.
func (p *put) settle(call int64, events []event, r rejection) []event {
	var left []event
	accepted := make([]string, 0, len(events))
	for i, e := range events {
		if code := r.code(i); code != "" {
			p.verdicts[e.entry] = audit.Verdict{Code: code, Reason: "CloudWatch Logs did not take the event's time"}
			left = append(left, e)
			continue
		}
		p.verdicts[e.entry] = audit.Verdict{Status: audit.Accepted}
		accepted = append(accepted, e.id)
	}
	if len(accepted) > 0 {
		p.judge.Accept(call, accepted...)
	}
	return left
}

// note tells each event of a call that failed why.
func (p *put) note(events []event, f *awscall.Failure) {
	for _, e := range events {
		p.verdicts[e.entry] = audit.Verdict{Code: f.Code, Reason: f.Reason}
	}
}
