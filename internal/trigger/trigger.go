// Package trigger is the protocol between the plugin and the relay. It holds both
// ends, so that they cannot drift apart: the sender names the Admin requests that
// have just been answered, and the relay reads the audit log at once.
//
// A trigger only makes the relay prompt. What the relay reads decides what is
// delivered: a trigger that is lost, repeated or forged costs at most one poll.
//
// The request is
//
//	POST /v1/trigger
//	webhook-id, webhook-timestamp, webhook-signature    Standard Webhooks, HMAC-SHA256
//	{"request_ids":["…"],"sent_at":"2026-01-02T03:04:05Z"}
//
// and the answer is 202 once the ids are stored, or else a status and
// {"reason":"…"}. A trigger without ids asks for a poll. The same content invokes a
// relay that runs as a Lambda function; see [Invocation].
//
// Two more paths accept what Kong itself can send: its event hooks at
// [EventHookPath], and its http-log plugin at [HTTPLogPath]. For the latter the
// route of the Admin API gets the plugin with this configuration, so that the
// body holds the id and nothing else:
//
//	name: http-log
//	config:
//	  http_endpoint: http://relay:8080/v1/http-log
//	  headers: {Authorization: "{vault://env/cloudtrail-relay-basic}"}
//	  queue: {max_batch_size: 100, max_coalescing_delay: 0.1}
//	  custom_fields_by_lua:
//	    request_id: return kong.response.get_header("X-Kong-Admin-Request-ID")
//	    request: return nil
//	    response: return nil
//	    # and the same for every other field of a log entry
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
	// Path is where a relay accepts triggers.
	Path = "/v1/trigger"
	// EventHookPath is where it accepts Kong's event hooks.
	EventHookPath = "/v1/event-hooks"
	// HTTPLogPath is where it accepts Kong's http-log plugin.
	HTTPLogPath = "/v1/http-log"

	// MaxBody is the largest body of a trigger, in bytes.
	MaxBody = 64 << 10
	// MaxID is the longest request id, in bytes.
	MaxID = 64
	// Tolerance is the largest difference between the sender's and the relay's clock.
	Tolerance = 5 * time.Minute
)

// envelope is an upper bound of a body's size without its ids, in bytes:
// {"request_ids":[],"sent_at":"…"} with a time in nanoseconds, inside {"trigger":…}.
const envelope = 128

// Body is the content of a trigger.
type Body struct {
	RequestIDs []string  `json:"request_ids"`
	SentAt     time.Time `json:"sent_at,omitzero"`
}

// Invocation is the payload that invokes a relay's Lambda function
// asynchronously: {"trigger":{"request_ids":["…"],"sent_at":"…"}}. It has no
// signature, because AWS checks who may invoke the function.
type Invocation struct {
	Trigger *Body `json:"trigger"`
}

// ParseInvocation decodes an [Invocation]. It is as strict as the handler of
// [Path] is with a body.
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

// unmarshal refuses unknown and repeated names, invalid UTF-8 and trailing data.
// Its error does not quote the data.
func unmarshal(data []byte, v any) error {
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return errNotObject // without this, null would decode to an empty object
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

// ValidID reports whether s can be announced, that is whether it matches
// ^[0-9A-Za-z]{1,64}$. Kong's ids have 32 of these characters.
func ValidID(s string) bool { return isToken(s, MaxID, "") }

// isToken reports whether s has 1 to most bytes, each of them an ASCII letter, a digit
// or one of extra.
func isToken(s string, most int, extra string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', strings.IndexByte(extra, c) >= 0:
		default:
			return false
		}
	}
	return s != "" && len(s) <= most
}

// Fit returns how many of the ids, beginning with the first, fit into one trigger.
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

// CheckSecret returns an error unless secret is one of Standard Webhooks: "whsec_"
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

// Loopback reports whether a listener at addr ("host:port") can be reached only
// from the machine that it runs on. A relay without a secret must not listen
// anywhere else. Names other than localhost are not resolved; Loopback returns
// false for them.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && LoopbackHost(host)
}

// LoopbackHost reports whether a host is this machine: localhost, or a loopback address.
func LoopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
