package cloudtrail

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
)

// Check tries the way to the channel without delivering anything: it puts an event
// that lacks every required field and has a wrong checksum, which no service can
// accept, and expects it to be refused.
//
// A nil error proves that the endpoint answers, that its certificate, the
// credentials, the clock and the Region are right, and that the channel exists
// and lets these credentials put. It does not prove that the event data store
// behind the channel is in service, nor that a real event would be accepted: the
// service may check an event's account and source only after its checksum. If the
// service refuses the call as a whole for its content, it may have done so before it
// looked at the channel.
//
// A *audit.SettingsError says what to do; any other error may pass by itself.
func (d *Destination) Check(ctx context.Context) error {
	call := newBody()
	call.text = []byte(bodyBegin)
	call.add("relay-check", []byte("{}"), [sha256.Size]byte{}) // no known text has this sum
	out, failure := d.call(ctx, call)
	if failure != nil {
		if failure.Kind == awscall.Refused {
			return nil
		}
		return fmt.Errorf("checking CloudTrail: %w", failure.Err())
	}
	if len(out.Failed.list) == 0 {
		return errors.New("checking CloudTrail: an event that is not valid was not refused: is this CloudTrail?")
	}
	code := d.caller.Clean(out.Failed.list[0].ErrorCode)
	if hint, ok := eventSettings[code]; ok {
		return audit.SettingsErrorf(hint, "checking CloudTrail: %s", code)
	}
	if service.IsTransient(code) {
		return fmt.Errorf("checking CloudTrail: %s", code)
	}
	return nil
}
