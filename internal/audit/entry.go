// Package audit holds what Kong Gateway recorded about requests to its Admin
// API, and the words that the packages around it share: a page of the log, what
// became of an entry, and how far a walk of the log has come.
//
// It imports nothing of this module, so that every adapter can use it.
package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// Entry is one Admin API request, as GET /audit/requests shows it. A field that
// Kong left out or set to null is empty.
//
// Texts of a page's entries may share memory. Whoever keeps an Entry for longer than its
// page must copy it out of the page's slice, which holds all of its entries, and call
// Detach on the copy, or they keep the texts of other entries too.
type Entry struct {
	// ID identifies the entry in the ledger and at the destination. It matches
	// ^[-_A-Za-z0-9]{1,128}$ and never changes between two reads of the same row.
	ID string `json:"id"`

	RequestID string `json:"request_id,omitempty"`
	Timestamp int64  `json:"request_timestamp"` // Unix seconds, by the clock of the control plane that wrote the row
	// TimestampGuessed reports that Kong did not give Timestamp as Unix seconds: it
	// was converted from another unit or from text, or it is the Date of the page
	// because Kong gave nothing usable. Such a timestamp says nothing about where
	// Kong sorts the row, so no order may be judged by it.
	TimestampGuessed   bool   `json:"timestamp_guessed,omitempty"`
	ClientIP           string `json:"client_ip,omitempty"`
	Method             string `json:"method,omitempty"`
	Path               string `json:"path,omitempty"` // with its query
	Status             int    `json:"status,omitempty"`
	TTL                int64  `json:"ttl"` // seconds until Kong deletes the row, or NoTTL
	Workspace          string `json:"workspace,omitempty"`
	Payload            string `json:"payload,omitempty"`
	EmptyPayload       bool   `json:"empty_payload,omitempty"` // the payload was a text without any character, not null
	RemovedFromPayload string `json:"removed_from_payload,omitempty"`
	Signature          string `json:"signature,omitempty"`
	RBACUserID         string `json:"rbac_user_id,omitempty"`
	RBACUserName       string `json:"rbac_user_name,omitempty"`
	RequestSource      string `json:"request_source,omitempty"`

	// Unknown is a JSON object of the fields that this version does not know,
	// as Kong sent them; empty where there are none.
	Unknown string `json:"unknown,omitempty"`
	// Withheld is a JSON object of the values that redaction withheld whole, by path in the
	// event, with size, SHA-256 and reason; empty where there are none.
	Withheld string `json:"withheld,omitempty"`
	// KongVersion is the version of the gateway that returned the row, or empty.
	KongVersion string `json:"kong_version,omitempty"`
	// Verification is the outcome of checking Signature; empty if it was not checked.
	Verification Verification `json:"verification,omitempty"`

	// Changes is a JSON object that says what the request changed, as the event's
	// responseElements; empty where that is not asked for or there is nothing to say.
	Changes string `json:"changes,omitempty"`
	// Object is set if the row is one of /audit/objects.
	Object *Object `json:"-"`
}

// Object is the part of a row of GET /audit/objects about the entity that a request changed.
// The other fields of such a row are those of its [Entry].
type Object struct {
	ID        string // of the row
	DAO       string // the kind of entity: routes
	Key       string // the entity's primary key
	Operation string // create, update or delete
	Entity    string // JSON text: the whole entity after the request; the deleted one after a delete
	Removed   string // comma-joined names of the keys that Kong took out of Entity
}

// IsAuditRead reports whether the request can be a relay's read of the audit log: a GET of
// exactly /audit/requests or /audit/objects, with or without the name of a workspace before
// it, and with a query that a relay sends.
func (e *Entry) IsAuditRead() bool {
	path, query, _ := strings.Cut(e.Path, "?")
	return e.Method == http.MethodGet && auditPath.MatchString(path) && auditQuery.MatchString(query)
}

var (
	auditPath = regexp.MustCompile(`^(/[^/]+)?/audit/(requests|objects)$`)

	// auditQuery matches the queries of package kongadmin, which always ask for a size.
	auditQuery = regexp.MustCompile(`^((after|offset|sort_by|sort_desc)=[^&]*&)*size=\d+(&(after|offset|sort_by|sort_desc)=[^&]*)*$`)
)

// The first and the last Unix second whose year has four digits.
const (
	MinEventTime = -62135596800 // 0001-01-01T00:00:00Z
	MaxEventTime = 253402300799 // 9999-12-31T23:59:59Z
)

// EventTime returns the time of the entry's event: the timestamp, or the nearest second
// whose year can be written with four digits.
func (e *Entry) EventTime() int64 { return min(max(e.Timestamp, MinEventTime), MaxEventTime) }

// NoTTL is the TTL of an entry for which Kong gave none.
const NoTTL = -1

// Verification is the outcome of checking an entry's signature.
type Verification string

// Outcomes of a check. Kong's documentation leaves open whether the timestamp
// is part of the signed text, so both forms are tried.
const (
	Verified              Verification = "verified"
	VerifiedWithTimestamp Verification = "verified-with-timestamp"
	VerificationFailed    Verification = "failed"
	Unsigned              Verification = "unsigned"
)

// Size is roughly the memory that the entry holds, in bytes. Queues are bounded by it.
func (e *Entry) Size() int {
	size := 256
	for _, text := range e.texts() {
		size += len(*text)
	}
	if e.Object != nil {
		size += 96
		for _, text := range e.Object.texts() {
			size += len(*text)
		}
	}
	return size
}

// Detach copies the entry's texts out of the memory of its page.
func (e *Entry) Detach() { e.replaceTexts(strings.Clone) }

// MakeValid replaces what is not UTF-8 in the entry's texts, so that every encoder takes
// them.
func (e *Entry) MakeValid() {
	e.replaceTexts(func(text string) string { return strings.ToValidUTF8(text, "\uFFFD") })
}

func (e *Entry) replaceTexts(by func(string) string) {
	for _, text := range e.texts() {
		*text = by(*text)
	}
	if e.Object != nil {
		for _, text := range e.Object.texts() {
			*text = by(*text)
		}
	}
}

// texts returns all texts of the entry, except those of its object.
func (e *Entry) texts() [16]*string {
	return [...]*string{
		&e.ID, &e.RequestID, &e.ClientIP, &e.Method, &e.Path, &e.Workspace, &e.Payload, &e.RemovedFromPayload,
		&e.Signature, &e.RBACUserID, &e.RBACUserName, &e.RequestSource, &e.Unknown, &e.Withheld, &e.KongVersion, &e.Changes,
	}
}

func (o *Object) texts() [6]*string {
	return [...]*string{&o.ID, &o.DAO, &o.Key, &o.Operation, &o.Entity, &o.Removed}
}

// maxID is the length of an id that PutAuditEvents and a ledger accept.
const maxID = 128

// Identity returns the ID for an entry: its request id where that can serve as
// one, else a hash of the request id. For an entry without a request id (some
// releases before Kong 3.4 leave it empty) it is a hash of the fields that are
// the same at every read: Kong computes ttl anew at each read, and an unknown field
// may change as well. Rows that are equal in all of those have the same identity:
// see [Ordinals].
//
// A source calls it once, with the timestamp and the bytes of each text exactly as
// Kong sent them, before it replaces any of them. Ledgers remember what it returns
// for a row, so it must never change: do not add a field, or rows will be delivered again.
func Identity(e *Entry) string {
	if validID(e.RequestID) {
		return e.RequestID
	}
	if e.RequestID != "" {
		sum := sha256.Sum256([]byte(e.RequestID))
		return "r-" + hex.EncodeToString(sum[:20])
	}
	return anonymous + hashOf(
		strconv.FormatInt(e.Timestamp, 10), e.ClientIP, e.Method, e.Path, strconv.Itoa(e.Status), e.Workspace,
		e.Payload, e.RemovedFromPayload, e.Signature, e.RBACUserID, e.RBACUserName, e.RequestSource,
	)
}

// hashOf returns a hash of texts, each with its length.
func hashOf(texts ...string) string {
	h := sha256.New()
	for _, s := range texts {
		h.Write(strconv.AppendInt(nil, int64(len(s)), 10))
		h.Write([]byte{':'})
		h.Write([]byte(s))
	}
	return hex.EncodeToString(h.Sum(nil)[:20])
}

// objectPrefix begins the ID of a row of /audit/objects, so that it differs from that of any
// entry of a ledger.
const objectPrefix = "o-"

// ObjectIdentity returns the ID for a row of /audit/objects: its id, or a hash of what
// is the same at every read.
func ObjectIdentity(e *Entry) string {
	o := e.Object
	if validID(o.ID) && len(o.ID) < maxID-len(objectPrefix) {
		return objectPrefix + o.ID
	}
	return objectPrefix + hashOf(o.ID, e.RequestID, o.DAO, o.Key, o.Operation, o.Entity)
}

// IsWrite reports whether the request may have changed something: it was not a read, and
// it did not fail.
func (e *Entry) IsWrite() bool {
	switch e.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	return e.Status < 400
}

// anonymous begins the ID of an entry that has no request id.
const anonymous = "e-"

// inID are the bytes that an ID may have.
var inID = func() (t [256]bool) {
	for _, c := range []byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") {
		t[c] = true
	}
	return t
}()

func validID(s string) bool {
	if s == "" || len(s) > maxID {
		return false
	}
	for i := range len(s) {
		if !inID[s[i]] {
			return false
		}
	}
	return true
}

// Ordinals tells apart rows without a request id that have the same identity: the
// second of them gets "-2" after its ID, the third "-3". Rows that are equal cannot
// be told apart by order either, so any order of them gives the same IDs.
//
// The zero value is ready. It holds one number for each such row since the last
// call of DropFrom, and nothing for rows that have a request id. It is not safe
// for concurrent use.
type Ordinals struct {
	seen map[string]ordinal
}

type ordinal struct {
	timestamp int64
	count     int
}

// Assign gives every entry of a page its ID. It must see a page once, and only
// once the page is complete.
func (o *Ordinals) Assign(entries []Entry) {
	for i := range entries {
		e := &entries[i]
		if e.RequestID != "" {
			continue
		}
		if o.seen == nil {
			o.seen = map[string]ordinal{}
		}
		s := o.seen[e.ID]
		s.timestamp, s.count = e.Timestamp, s.count+1
		o.seen[e.ID] = s
		if s.count > 1 {
			e.ID += "-" + strconv.Itoa(s.count)
		}
	}
}

// DropFrom drops what is known of rows at or after a time, before they are read again.
func (o *Ordinals) DropFrom(from int64) {
	maps.DeleteFunc(o.seen, func(_ string, s ordinal) bool { return s.timestamp >= from })
}

// DropBefore drops what is known of rows before a time, which will not be read again.
func (o *Ordinals) DropBefore(before int64) {
	maps.DeleteFunc(o.seen, func(_ string, s ordinal) bool { return s.timestamp < before })
}

// Encode appends the event of an entry to dst: one line of JSON in UTF-8, without the
// line's end. The event holds the entry's id.
type Encode func(dst []byte, e *Entry) []byte
