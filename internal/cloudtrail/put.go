package cloudtrail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/cloudtraildata"
	"github.com/aws/aws-sdk-go-v2/service/cloudtraildata/types"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
	"github.com/kong-cloudtrail/relay/internal/verdict"
)

// batch is what one call carries: the events of consecutive entries.
type batch struct {
	*body
	verdicts  []audit.Verdict // one for each event
	firstCall int64           // the number of the call in which its events were first put
}

func (b batch) part(lo, hi int) batch {
	return batch{b.body.part(lo, hi), b.verdicts[lo:hi], b.firstCall}
}

// Put delivers entries, in as many calls as AWS's limits need, one after the
// other, each tried once. It waits for nothing but its turn under the rate.
//
// There is a verdict for each entry, whatever the error: what is Accepted is
// durable at AWS, what is Rejected would be refused again, and anything else is
// Retryable. Put fails if a call fails, but not if only single events are to be put
// again. A *audit.SettingsError means that a person has to change something; it is no
// reason to reject an entry.
//
// An entry that occurs twice in entries is put twice, in two calls.
func (d *Destination) Put(ctx context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	verdicts := make([]audit.Verdict, len(entries))
	var failure error
	b := d.bodies.Get().(*body)
	defer d.bodies.Put(b)
	for done := 0; done < len(entries); {
		d.encode(b, entries[done:])
		n := len(b.events)
		err := d.send(ctx, batch{b, verdicts[done : done+n], 0})
		done += n
		if err == nil {
			continue
		}
		stop := stopsPut(err)
		if failure == nil || stop || verdict.IsUndecided(failure) {
			failure = err
		}
		if stop {
			break
		}
	}
	if failure = verdict.PutError(failure, verdicts); failure != nil {
		return verdicts, fmt.Errorf("putting %d entries into CloudTrail: %w", len(entries), failure)
	}
	return verdicts, nil
}

// stopsPut reports whether the calls that are still to be made would fail as well. They
// may succeed if the answer can be about the events of this call, such as a 5xx or an
// answer that cannot be read.
func stopsPut(err error) bool {
	var f *awscall.Failure
	if verdict.IsUndecided(err) {
		return false
	}
	return audit.NeedsPerson(err) || !errors.As(err, &f) || f.AnyCall || !f.Answered
}

// send puts a batch in one call, and in smaller ones if AWS refuses that call for
// something that may be in it.
func (d *Destination) send(ctx context.Context, b batch) error {
	number := d.judge.Begin()
	if b.firstCall == 0 {
		b.firstCall = number
	}
	out, failure := d.call(ctx, b.body)
	if failure == nil {
		return d.setVerdicts(number, b, out)
	}
	for i := range b.verdicts {
		b.verdicts[i] = failure.Verdict()
	}
	switch {
	case failure.Kind != awscall.Refused && failure.Kind != awscall.TooLarge:
		return failure.Err()
	case len(b.events) > 1:
		return d.narrow(ctx, b)
	case failure.NotAWS:
		return failure.Err()
	}
	return d.judge.Decide(service.Name, &b.verdicts[0], b.events[0].id, b.firstCall, false)
}

// tooManyAlone is after how many events of a batch, each refused in a call by itself while
// none is accepted, narrow gives up: AWS would refuse the others as well.
const tooManyAlone = 3

// narrow puts the parts of a refused batch, down to single events.
func (d *Destination) narrow(ctx context.Context, b batch) error {
	var failure error
	alone := 0
	err := verdict.Narrow(len(b.events), func(lo, hi int) error {
		err := d.send(ctx, b.part(lo, hi))
		if err == nil || stopsPut(err) {
			return err
		}
		if hi-lo == 1 && !verdict.IsUndecided(err) {
			alone++
		}
		if alone >= tooManyAlone && !slices.ContainsFunc(b.verdicts, func(v audit.Verdict) bool { return v.Status == audit.Accepted }) {
			return err
		}
		if failure == nil || verdict.IsUndecided(failure) {
			failure = err
		}
		return nil
	})
	return cmp.Or(err, failure)
}

// call sends a body in one call, once the rate allows it.
func (d *Destination) call(ctx context.Context, b *body) (*answer, *awscall.Failure) {
	text := b.whole()
	withBody := func(o *cloudtraildata.Options) {
		o.APIOptions = append(o.APIOptions, awscall.WithBody(text), awscall.WithAnswer(b.answer.read))
	}
	failure := d.caller.Do(ctx, func(ctx context.Context) error {
		if err := d.turns.wait(ctx, d.urgent); err != nil {
			return d.caller.Canceled(err)
		}
		_, err := d.client.PutAuditEvents(ctx, &cloudtraildata.PutAuditEventsInput{
			AuditEvents: []types.AuditEvent{}, ChannelArn: &d.channelARN, ExternalId: d.externalID, // the events are in the body
		}, withBody)
		return err
	})
	return &b.answer, failure
}

// setVerdicts sets the verdicts of a batch to what the answer of the call says, which has the
// given number.
func (d *Destination) setVerdicts(number int64, b batch, out *answer) error {
	last := -1 // the last event that was accepted
	accepted := make([]string, 0, len(out.Successful.list))
	for _, e := range out.Successful.list {
		if i, ok := b.index[e.ID]; ok { // an event that was not put is ignored
			b.verdicts[i] = audit.Verdict{Status: audit.Accepted}
			last = max(last, i)
			accepted = append(accepted, e.ID)
		}
	}
	if len(accepted) > 0 {
		d.judge.Accept(number, accepted...)
	}
	var failure error
	for _, e := range out.Failed.list {
		if i, ok := b.index[e.ID]; ok {
			v := &b.verdicts[i]
			if v.Status == audit.Accepted {
				// Nothing tells which is true. Better to deliver it twice than not at all.
				*v = audit.Verdict{Code: "Contradiction", Reason: "the answer lists the event as accepted and as failed"}
				continue
			}
			*v = audit.Verdict{Code: d.caller.Clean(e.ErrorCode), Reason: d.caller.Clean(e.ErrorMessage)}
			if err := d.failed(v, e.ID, b.firstCall, i < last); failure == nil || verdict.IsUndecided(failure) {
				failure = cmp.Or(err, failure)
			}
		}
	}
	for i := range b.verdicts {
		if v := &b.verdicts[i]; v.Status == audit.Retryable && v.Code == "" && v.Reason == "" {
			*v = audit.Verdict{Code: "NoAnswer", Reason: "the answer lists the event neither as accepted nor as failed", AnswerLost: true}
		}
	}
	return failure
}

// failed decides about an event that the answer lists as failed, and sets its verdict.
func (d *Destination) failed(v *audit.Verdict, id string, firstCall int64, laterAccepted bool) error {
	hint, setting := eventSettings[v.Code]
	switch {
	case setting:
		return audit.SettingsErrorf(hint, "CloudTrail refused an event: %s: %s", v.Code, v.Reason)
	case v.Code == "" || service.IsTransient(v.Code):
		return nil
	case aboutEvent[v.Code]:
		v.Status = audit.Rejected
		return nil
	}
	return d.judge.Decide(service.Name, v, id, firstCall, laterAccepted)
}
