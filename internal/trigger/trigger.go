// Package trigger is the wire between the plugin and the relay, both ends of
// it, so that they cannot drift apart: a sender says which Admin requests have
// just been answered, and the relay pulls the audit log at once.
//
// A trigger only makes the relay prompt. The pull stays the authority: a
// trigger that is lost, repeated or forged costs at most one look at the log.
//
// The request is
//
//	POST /v1/trigger
//	webhook-id, webhook-timestamp, webhook-signature    Standard Webhooks, HMAC-SHA256
//	{"request_ids":["…"],"sent_at":"2026-01-02T03:04:05Z"}
//
// and its answer 202 once the ids are noted, else a status and {"reason":"…"}.
// No ids means "look now". The same content invokes a relay that runs as a
// Lambda function: see [Invocation].
package trigger

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	// Path is where a relay takes triggers.
	Path = "/v1/trigger"
	// EventHookPath is where it takes Kong's own event hooks.
	EventHookPath = "/v1/event-hooks"
	// HTTPLogPath is where it accepts Kong's http-log plugin.
	HTTPLogPath = "/v1/http-log"

	// MaxBody is the largest body of a trigger, in bytes.
	MaxBody = 64 << 10
	// MaxID is the longest request id, in bytes.
	MaxID = 64
	// Tolerance is how far the clocks of sender and relay may be apart.
	Tolerance = 5 * time.Minute
)

// envelope is what a body costs besides its ids: {"request_ids":[],"sent_at":"…"}
// with a time in nanoseconds, inside {"trigger":…}, with room to spare.
const envelope = 128

// Body is the content of a trigger.
type Body struct {
	RequestIDs []string  `json:"request_ids"`
	SentAt     time.Time `json:"sent_at,omitzero"`
}

// Invocation is the payload that invokes a relay's Lambda function
// asynchronously: {"trigger":{"request_ids":["…"],"sent_at":"…"}}. There is no
// signature in it: AWS has checked who may invoke the function.
type Invocation struct {
	Trigger *Body `json:"trigger"`
}

// ParseInvocation reads a payload in the form of [Invocation]. It is as strict
// as the handler of [Path] is about a body.
func ParseInvocation(payload []byte) (Body, error) {
	if len(payload) > MaxBody {
		return Body{}, errors.New("the payload is larger than a trigger can be")
	}
	var i Invocation
	if err := unmarshal(payload, &i); err != nil {
		return Body{}, err
	}
	if i.Trigger == nil {
		return Body{}, errors.New("the payload holds no trigger")
	}
	return *i.Trigger, i.Trigger.check()
}

func parseBody(data []byte) (Body, error) {
	var b Body
	if err := unmarshal(data, &b); err != nil {
		return Body{}, err
	}
	return b, b.check()
}

// unmarshal refuses unknown and repeated names, invalid UTF-8 and trailing
// data. Its error quotes nothing of the data.
func unmarshal(data []byte, v any) error {
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return errNotObject // null would pass as an empty object
	}
	if err := json.Unmarshal(data, v, json.RejectUnknownMembers(true)); err != nil {
		return errNotObject
	}
	return nil
}

var (
	errNotObject = errors.New(`body is not {"request_ids":[…],"sent_at":"…"}`)
	errBadID     = errors.New("a request id is not 1 to 64 letters and digits")
)

func (b Body) check() error {
	for _, id := range b.RequestIDs {
		if !ValidID(id) {
			return errBadID
		}
	}
	return nil
}

// ValidID tells whether s can be announced: ^[0-9A-Za-z]{1,64}$. Kong's ids are 32 of these.
func ValidID(s string) bool {
	if s == "" || len(s) > MaxID {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		default:
			return false
		}
	}
	return true
}

// Fit returns how many of ids, from the first on, one trigger can carry.
func Fit(ids []string) int {
	size := envelope
	for i, id := range ids {
		size += len(id) + len(`"",`)
		if size > MaxBody {
			return i
		}
	}
	return len(ids)
}

// CheckSecret tells what is wrong with a secret of Standard Webhooks: "whsec_"
// and the base64 of 24 to 64 bytes. The error does not quote the secret.
func CheckSecret(secret string) error {
	const format = `want "whsec_" and the base64 of 24 to 64 random bytes, as from: echo "whsec_$(openssl rand -base64 32)"`
	text, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return fmt.Errorf(`the secret does not begin with "whsec_": %s`, format)
	}
	key, err := base64.StdEncoding.DecodeString(text)
	switch {
	case err != nil:
		return fmt.Errorf("the secret is not base64: %s", format)
	case len(key) < 24 || len(key) > 64:
		return fmt.Errorf("the secret holds %d bytes: %s", len(key), format)
	}
	return nil
}

// Loopback tells whether a listener at addr ("host:port") can be reached from
// this machine only. A relay without a secret must not listen anywhere else.
// A name other than localhost is not looked up, and counts as reachable.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	return loopbackHost(host)
}

func loopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
