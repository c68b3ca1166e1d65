package cloudtrail

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Limits of an event, in bytes. AWS gives its limits in characters or in kilobytes, and
// does not say how it counts. However it does, limits in bytes (of UTF-8, or of JSON text
// for an object; 1,000 to the kilobyte) are never larger than those.
const (
	maxEvent      = 256_000 // eventData
	maxParameters = 100_000 // requestParameters, and responseElements, as JSON text
	maxAdditional = 28_000  // additionalEventData, as JSON text
	maxLong       = 1024    // principalId, eventName, UID
	maxMedium     = 256     // version

	// maxQuery bounds the query string (as JSON text) if there is a payload as well.
	maxQuery = 30_000
	// Limits of single fields of additionalEventData, as JSON text. Together these fields
	// leave more than half of it to removedFromPayload and unknown fields.
	maxSmall     = 512
	maxHostname  = 1024
	maxSignature = 4096
	// truncatedReserve is kept free in additionalEventData for the list of what was cut.
	// TestAdditionalEventDataLimit fails if that list can be longer.
	truncatedReserve = 3072
	// kongShare is what a long removedFromPayload leaves to unknown fields.
	kongShare = 4096
	// restReserve is kept free for the fields between responseElements and
	// additionalEventData.
	restReserve = 256
)

// mapping turns entries into events. Its fields are what all events have in common.
type mapping struct {
	account    string // the account that owns the channel
	hostname   string // the Admin API's URL as configured
	errorCodes bool
}

// NewEncoder returns a function that maps an entry to the eventData that Put would send,
// for destinations that are not a channel but hold the same events. hostname is the Admin
// API's URL as configured; account is the recipient's, and may be empty.
func NewEncoder(hostname, account string, errorCodes bool) audit.Encode {
	m := mapping{account: account, hostname: hostname, errorCodes: errorCodes}
	return m.appendEvent
}

// appendEvent is an [audit.Encode] whose events are within the limits.
func (m *mapping) appendEvent(dst []byte, e *audit.Entry) []byte {
	w := writer{buf: dst}
	m.write(&w, e)
	return w.buf
}

// eventID returns the id of an entry's event, which is also its UID. It is the request id
// if that can serve as an id.
func eventID(e *audit.Entry) string {
	if e.ID != "" {
		return e.ID
	}
	return audit.Identity(e)
}

// write appends the eventData of an entry to w.
func (m *mapping) write(w *writer, e *audit.Entry) {
	id := eventID(e)
	path, query, _ := strings.Cut(e.Path, "?")
	start := len(w.buf)

	w.raw(`{"version":`)
	if e.KongVersion == "" {
		w.raw(`"unknown"`)
	} else {
		w.field("", "version", e.KongVersion, maxMedium)
	}
	m.identity(w, e)
	w.raw(`,"eventSource":"kong-gateway","eventName":`)
	w.tmp = append(append(w.tmp[:0], e.Method...), eventPath(path)...)
	if 3*len(w.tmp) <= maxLong {
		w.buf, _ = jsontext.AppendQuote(w.buf, w.tmp)
	} else {
		w.field("", "eventName", string(w.tmp), maxLong)
	}
	w.raw(`,"eventTime":"`)
	at := e.EventTime()
	w.buf = time.Unix(at, 0).UTC().AppendFormat(w.buf, time.RFC3339)
	w.raw(`","UID":`)
	w.field("", "UID", id, maxLong)
	m.parameters(w, query, e.Payload, e.EmptyPayload)
	m.response(w, e.Changes, start)
	if m.errorCodes && e.Status >= 400 {
		w.raw(`,"errorCode":"`)
		w.number(int64(e.Status))
		w.raw(`"`)
	}
	addressed := isAddress(e.ClientIP)
	if addressed {
		w.raw(`,"sourceIPAddress":`)
		w.quote(e.ClientIP)
	}
	w.raw(`,"recipientAccountId":"`)
	w.raw(m.account)
	w.raw(`"`)
	m.additional(w, e, id, at, addressed)
	w.raw(`}`)
}

// eventPath returns a path as it is in eventName, without slashes at its end, but at least a
// slash.
func eventPath(path string) string {
	if p := strings.TrimRight(path, "/"); p != "" {
		return p
	}
	return "/"
}

// isAddress reports whether s is an IPv4 or IPv6 address without a zone. AWS accepts
// nothing else as sourceIPAddress.
func isAddress(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

// identity writes userIdentity.
func (m *mapping) identity(w *writer, e *audit.Entry) {
	if e.RBACUserID == "" {
		w.raw(`,"userIdentity":{"type":"Anonymous","principalId":"anonymous",` +
			`"details":{"RBAC":"Anonymous User on Kong Gateway: Please Enable RBAC on Kong Gateway"}}`)
		return
	}
	w.raw(`,"userIdentity":{"type":"KongRBACUser","principalId":`)
	w.field("userIdentity.", "principalId", e.RBACUserID, maxLong)
	if e.RBACUserName != "" || e.RequestSource != "" {
		w.raw(`,"details":{`)
		if e.RBACUserName != "" {
			w.key("rbac_user_name")
			w.field("userIdentity.details.", "rbac_user_name", e.RBACUserName, maxLong)
		}
		if e.RequestSource != "" {
			w.key("request_source")
			w.field("userIdentity.details.", "request_source", e.RequestSource, maxLong)
		}
		w.raw(`}`)
	}
	w.raw(`}`)
}

// parameters writes requestParameters, if there is a query string or a payload. empty
// reports that there is a payload and that it is empty.
func (m *mapping) parameters(w *writer, query, payload string, empty bool) {
	if query == "" && payload == "" && !empty {
		return
	}
	w.raw(`,"requestParameters":`)
	w.open(maxParameters)
	if query != "" {
		w.key("queryParameters")
		limit := w.left(0)
		if payload != "" {
			limit = maxQuery
		}
		w.text("requestParameters.", "queryParameters", query, limit)
	}
	if payload != "" || empty {
		w.key("payload")
		w.object("requestParameters.", "payload", payload, w.left(0))
	}
	w.raw(`}`)
}

// response writes responseElements, which says what the request changed. The event begins
// at start in w.buf.
func (m *mapping) response(w *writer, changes string, start int) {
	if changes == "" {
		return
	}
	w.raw(`,"responseElements":`)
	limit := min(maxParameters, maxEvent-maxAdditional-restReserve-(len(w.buf)-start))
	if len(changes) > limit || !utf8.ValidString(changes) || !w.isObject(changes) {
		w.cut("responseElements", changes)
		changes = `{"changes":[]}`
	}
	w.raw(changes)
}

// additional writes additionalEventData. It comes last, since it lists what was cut before.
func (m *mapping) additional(w *writer, e *audit.Entry, id string, at int64, addressed bool) {
	const object = "additionalEventData."
	w.raw(`,"additionalEventData":`)
	w.open(maxAdditional)
	small := func(key, value string, limit int) {
		if value != "" {
			w.key(key)
			w.text(object, key, value, limit)
		}
	}
	small("workspace", e.Workspace, maxSmall)
	small("hostname", m.hostname, maxHostname)
	small("method", e.Method, maxSmall)
	small("signature", e.Signature, maxSignature)
	if e.TTL != audit.NoTTL {
		w.key("ttl")
		w.number(e.TTL)
	}
	if e.Status != 0 {
		w.key("status")
		w.number(int64(e.Status))
	}
	small("signatureVerification", string(e.Verification), maxSmall)
	// Values that have no other place in the event, or do not fit into it.
	if !addressed {
		small("clientIP", e.ClientIP, maxSmall)
	}
	if at != e.Timestamp {
		w.key("requestTimestamp")
		w.number(e.Timestamp)
	}
	if e.RequestID != id {
		small("requestID", e.RequestID, maxSmall)
	}
	if e.RBACUserID == "" { // userIdentity.details holds the notice about RBAC instead
		small("rbac_user_name", e.RBACUserName, maxSmall)
		small("request_source", e.RequestSource, maxSmall)
	}
	if e.TimestampGuessed {
		w.key("timestampGuessed")
		w.raw("true")
	}
	if e.Withheld != "" {
		w.key("withheld")
		w.object(object, "withheld", e.Withheld, maxSignature)
	}
	if e.RemovedFromPayload != "" {
		w.key("removedFromPayload")
		reserve := truncatedReserve
		if hasFields(e.Unknown) {
			reserve += min(kongShare, 16+6*len(e.Unknown))
		}
		w.text(object, "removedFromPayload", e.RemovedFromPayload, w.left(reserve))
	}
	if hasFields(e.Unknown) {
		w.key("kong")
		w.object(object, "kong", e.Unknown, w.left(truncatedReserve))
	}
	if len(w.cuts) > 0 {
		w.key("truncated")
		w.truncated()
	}
	w.raw(`}`)
}

// hasFields reports whether an object, given as JSON text or as nothing, has fields.
func hasFields(object string) bool {
	return object != "" && object != "{}"
}

func (w *writer) number(n int64) { w.buf = strconv.AppendInt(w.buf, n, 10) }
