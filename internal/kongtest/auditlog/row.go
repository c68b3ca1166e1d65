package auditlog

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Row is a row of GET /audit/requests. A nil pointer is shown as null.
type Row struct {
	RequestID          string // 32 of [0-9A-Za-z]; empty in some releases before 3.4
	RequestTimestamp   int64  // Unix seconds
	ClientIP           string
	Method             string
	Path               string // with its query
	Status             int
	Workspace          *string
	Payload            *string
	RemovedFromPayload *string
	Signature          *string
	RBACUserID         *string
	RBACUserName       *string
	RequestSource      *string

	// Extra holds fields that no release has yet, as JSON. A name that Kong knows
	// replaces Kong's value, so that a test can send a status that is a string.
	Extra map[string]jsontext.Value
	// Omit names fields that are left out altogether.
	Omit []string
}

// Object is a row of GET /audit/objects: an entity that a request changed. A nil pointer
// is shown as null.
type Object struct {
	ID        string // UUID of the row itself
	RequestID string // of the request, as in Row
	EntityKey string // primary key of the entity
	DAOName   string // routes
	Operation string // create, update or delete
	Entity    string // JSON text: the whole new entity, or the deleted one
	// RequestTimestamp is in Unix seconds. Releases that do not filter have none, and once
	// they are upgraded show 1.
	RequestTimestamp  int64
	RemovedFromEntity *string
	RBACUserID        *string
}

// field is one that does not depend on when a row is shown. Its value is an int or a *string, which is nil for null.
type field struct {
	name  string
	value any
}

func (r *Row) fields() []field {
	return []field{
		{"request_id", &r.RequestID}, {"client_ip", &r.ClientIP}, {"method", &r.Method}, {"status", r.Status},
		{"workspace", r.Workspace}, {"rbac_user_id", r.RBACUserID}, {"rbac_user_name", r.RBACUserName},
		{"request_source", r.RequestSource}, {"removed_from_payload", r.RemovedFromPayload}, {"signature", r.Signature},
		{"path", &r.Path}, {"payload", r.Payload},
	}
}

func (o *Object) fields() []field {
	return []field{
		{"id", &o.ID}, {"request_id", &o.RequestID}, {"entity_key", &o.EntityKey}, {"dao_name", &o.DAOName},
		{"operation", &o.Operation}, {"entity", &o.Entity}, {"removed_from_entity", o.RemovedFromEntity},
		{"rbac_user_id", o.RBACUserID}, {"signature", (*string)(nil)},
	}
}

// Record is a row as a [Table] holds it.
type Record struct {
	ID string // primary key

	tail      string // what does not depend on when it is shown: fields, and a brace
	timestamp int64
	expires   int64 // Unix seconds
	noTime    bool  // it has no request_timestamp
	noTTL     bool
	dead      bool
}

// Encode returns a row that lives for ttl seconds from its timestamp or, if it would not
// be seen at all, from now, as if Kong had just inserted it.
func (r *Row) Encode(now, ttl int64) Record {
	gone := func(name string) bool {
		_, other := r.Extra[name]
		return other || slices.Contains(r.Omit, name)
	}
	b := appendFields(nil, r.fields(), gone)
	for _, name := range slices.Sorted(maps.Keys(r.Extra)) {
		b = append(append(append(appendString(b, name), ':'), r.Extra[name]...), ',')
	}
	return Record{
		ID: r.RequestID, tail: tail(b), timestamp: r.RequestTimestamp, expires: expiry(r.RequestTimestamp, now, ttl),
		noTime: gone("request_timestamp"), noTTL: gone("ttl"),
	}
}

// Encode is [Row.Encode] for an object.
func (o *Object) Encode(now, ttl int64) Record {
	b := appendFields(nil, o.fields(), func(string) bool { return false })
	return Record{ID: o.ID, tail: tail(b), timestamp: o.RequestTimestamp, expires: expiry(o.RequestTimestamp, now, ttl)}
}

// tail puts the brace behind fields in the place of the last comma.
func tail(fields []byte) string {
	fields[len(fields)-1] = '}'
	return string(fields)
}

func expiry(timestamp, now, ttl int64) int64 {
	if t := timestamp + ttl; t > now {
		return t
	}
	return now + ttl
}

func appendFields(b []byte, fields []field, gone func(name string) bool) []byte {
	for _, f := range fields {
		if gone(f.name) {
			continue
		}
		b = append(append(append(b, '"'), f.name...), `":`...)
		switch v := f.value.(type) {
		case int:
			b = strconv.AppendInt(b, int64(v), 10)
		case *string:
			if v == nil {
				b = append(b, "null"...)
			} else {
				b = appendString(b, *v)
			}
		}
		b = append(b, ',')
	}
	return b
}

// appendString appends s as a JSON string. Like Lua's encoder it passes on bytes
// beyond ASCII as they are, valid UTF-8 or not.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c != 0x7f {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, c)
		}
	}
	return append(append(dst, s[start:]...), '"')
}

// anyBytes takes texts that are not UTF-8, as Kong does.
var anyBytes = jsontext.AllowInvalidUTF8(true)

// Sign gives the row a signature if it has none. Kong probably signs before it sets the
// timestamp, so both forms are possible.
func (r *Row) Sign(key *rsa.PrivateKey, timestamp bool) {
	if r.Signature != nil {
		return
	}
	sum := sha256.Sum256(r.signedText(timestamp))
	b, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err) // the test's key is too short
	}
	r.Signature = new(base64.StdEncoding.EncodeToString(b))
}

// signedText joins the values of the row's non-null fields in the order of their names.
func (r *Row) signedText(timestamp bool) []byte {
	values := map[string]string{}
	if timestamp {
		values["request_timestamp"] = strconv.FormatInt(r.RequestTimestamp, 10)
	}
	for _, f := range r.fields() {
		switch v := f.value.(type) {
		case int:
			values[f.name] = strconv.Itoa(v)
		case *string:
			if v != nil {
				values[f.name] = *v
			}
		}
	}
	for _, name := range r.Omit {
		delete(values, name)
	}
	for name, v := range r.Extra {
		text, err := jsontext.AppendUnquote(nil, v)
		if err != nil {
			text = v // no string: as it is, numbers in decimal
		}
		if values[name] = string(text); v.Kind() == 'n' || name == "request_timestamp" && !timestamp {
			delete(values, name)
		}
	}
	for _, name := range []string{"ttl", "expire", "signature"} {
		delete(values, name)
	}
	var text []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		text = append(text, values[name])
	}
	return []byte(strings.Join(text, "|"))
}
