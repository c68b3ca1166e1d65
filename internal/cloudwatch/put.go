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
// CloudWatch Logs accepts nothing that is older than 14 days or the group's
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

	b := d.bodies.Get().(*body) // never more than one call's worth is held encoded
	defer d.bodies.Put(b)
	b.events = b.events[:0]
	var data []byte
	for i, e := range events {
		data = d.encode(data[:0], &entries[e.entry])
		if len(data) == 0 || len(data) > maxEventBytes {
			p.verdicts[e.entry] = audit.Verdict{
				Status: audit.Rejected, Code: "InvalidSize",
				Reason: fmt.Sprintf("an event has 1 to %d bytes, this one has %d", maxEventBytes, len(data)),
			}
			continue
		}
		if len(b.events) > 0 && !b.takes(data, e.at) {
			if err := p.send(ctx, b, 0); err != nil && !verdict.IsUndecided(err) {
				return p.verdicts, err
			}
			b.events = b.events[:0]
		}
		if len(b.events) == 0 {
			b.begin(d.bodyBegin, data, len(events)-i)
		}
		b.add(e, data)
	}
	if len(b.events) == 0 {
		return p.verdicts, nil
	}
	return p.verdicts, verdict.PutError(p.send(ctx, b, 0), p.verdicts)
}

// filedAt returns the time, in milliseconds, under which an entry of a Unix second
// is filed: its own if AWS accepts that, else now.
func filedAt(second int64, now time.Time) int64 {
	if second < now.Add(-maxAge).Unix() || second > now.Add(maxAhead).Unix() {
		return now.UnixMilli()
	}
	return second * 1000
}

// send puts the events of one call, and puts them in smaller calls if AWS refuses it
// for what may be in it. firstCall is the number of the call in which the events
// were first put, together with others; 0 if this is the first.
func (p *put) send(ctx context.Context, b *body, firstCall int64) error {
	number := p.judge.Begin()
	if firstCall == 0 {
		firstCall = number
	}
	rejected, failure := p.putLogEvents(ctx, b)
	if failure == nil {
		return p.answered(ctx, number, b, rejected)
	}
	p.note(b.events, failure)
	switch {
	case failure.Kind != awscall.Refused && failure.Kind != awscall.TooLarge:
		return p.failed(failure)
	case len(b.events) > 1:
		return p.narrow(ctx, b, firstCall)
	case failure.NotAWS:
		return p.failed(failure)
	}
	one := b.events[0]
	return p.judge.Decide(service.Name, &p.verdicts[one.entry], one.id, firstCall, false)
}

// narrow puts the parts of refused events, down to single ones.
func (p *put) narrow(ctx context.Context, b *body, firstCall int64) error {
	var undecided error
	err := verdict.Narrow(len(b.events), func(lo, hi int) error {
		err := p.send(ctx, p.part(b, b.events[lo:hi], 0), firstCall)
		if verdict.IsUndecided(err) {
			undecided, err = err, nil
		}
		return err
	})
	return cmp.Or(err, undecided)
}

// part returns a body of some of the events of another one, filed under a time in
// milliseconds; 0 leaves them under their times.
func (p *put) part(of *body, events []event, at int64) *body {
	size := 0
	for _, e := range events {
		size += e.to - e.from + len(eventBefore) + len(eventAfter) + len(",1234567890123}")
	}
	b := &body{text: make([]byte, 0, len(p.bodyBegin)+size+len(bodyEnd))}
	b.text = append(b.text, p.bodyBegin...)
	for _, e := range events {
		b.addFrom(of, e, cmp.Or(at, e.at))
	}
	return b
}

func (p *put) failed(f *awscall.Failure) error {
	return fmt.Errorf("putting log events into %s: %w", p.group, f.Err())
}

// answered handles the answer to a call that succeeded. What AWS left out because
// of its time is put once more, under the present time: the group's retention may be
// shorter than 14 days, and nothing that Kong still has is too old to keep.
func (p *put) answered(ctx context.Context, number int64, b *body, r rejection) error {
	again := p.setVerdicts(number, b.events, r)
	if len(again) == 0 {
		return nil
	}
	number = p.judge.Begin()
	r, failure := p.putLogEvents(ctx, p.part(b, again, p.now().UnixMilli()))
	if failure != nil {
		// Even a refusal leaves these retryable: each was in a call that succeeded.
		p.note(again, failure)
		return p.failed(failure)
	}
	if left := p.setVerdicts(number, again, r); len(left) > 0 {
		return audit.WithHint(fmt.Errorf("putting log events into %s: %d events are filed under the present time, and AWS calls that %s", p.group, len(left), p.verdicts[left[0].entry].Code),
			"set this machine's clock, by NTP")
	}
	return nil
}

// setVerdicts sets the verdicts on the events of the call with a number, which succeeded, and
// returns those that AWS left out because of their time.
func (p *put) setVerdicts(number int64, events []event, r rejection) []event {
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
		p.judge.Accept(number, accepted...)
	}
	return left
}

// note sets the reason of a failed call for each of its events.
func (p *put) note(events []event, f *awscall.Failure) {
	for _, e := range events {
		p.verdicts[e.entry] = f.Verdict()
	}
}
