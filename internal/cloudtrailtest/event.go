package cloudtrailtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

// Limits of PutAuditEvents, from AWS's documentation. Where it says kB, the
// smaller reading (1,000) is taken, and lengths are counted in bytes, not in
// characters: what passes here passes under any reading.
const (
	MaxEvents      = 100       // events a call
	MaxBody        = 1_000_000 // bytes of a request's body
	MaxEvent       = 256_000   // bytes of one eventData
	MaxParameters  = 100_000   // bytes of requestParameters, and of responseElements
	MaxAdditional  = 28_000    // bytes of additionalEventData
	eventTimeShape = "2006-01-02T15:04:05Z"
)

// failure is why one event is refused; the rest of its call goes on.
type failure struct {
	code    string
	message string
}

func (f *failure) Error() string { return f.code + ": " + f.message }

// checker checks the events of one call. Its buffer is used again for each.
type checker struct {
	eventSource string // if set, the only one that is taken
	buf         []byte
}

func checksumMatches(data []byte, checksum string) bool {
	sum := sha256.Sum256(data)
	return checksum == base64.StdEncoding.EncodeToString(sum[:])
}

// field is a row of the table of eventData.
type field struct {
	name     string
	required bool
	limit    int // bytes; 0 is none
	object   bool
}

var eventFields = []field{
	{name: "version", required: true, limit: 256},
	{name: "userIdentity", required: true, object: true},
	{name: "userAgent", limit: 1024},
	{name: "eventSource", required: true, limit: 1024},
	{name: "eventName", required: true, limit: 1024},
	{name: "eventTime", required: true, limit: len(eventTimeShape)},
	{name: "UID", required: true, limit: 1024},
	{name: "requestParameters", object: true, limit: MaxParameters},
	{name: "responseElements", object: true, limit: MaxParameters},
	{name: "errorCode", limit: 256},
	{name: "errorMessage", limit: 256},
	{name: "sourceIPAddress"},
	{name: "recipientAccountId", required: true},
	{name: "additionalEventData", object: true, limit: MaxAdditional},
}

var identityFields = []field{
	{name: "type", required: true, limit: 128},
	{name: "principalId", required: true, limit: 1024},
	{name: "details", object: true},
}

// check returns what is wrong with an event's data, or nil, and notes in e what it says. AWS
// does not say whether it takes fields that its table does not have, a field twice, or null
// for an optional one: here they are InvalidData.
func (c *checker) check(data []byte, e *awstest.Event) *failure {
	if len(data) > MaxEvent {
		return &failure{"FieldTooLong", "the event is larger than 256 kB"}
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(data), jsonOptions...)
	if d.PeekKind() != '{' || !utf8.Valid(data) {
		return &failure{"InvalidData", "eventData is not a JSON object"}
	}
	f := c.fields(d, "", eventFields, func(name string, v []byte) *failure {
		switch name {
		case "eventSource":
			e.Place = string(v)
			if c.eventSource != "" && e.Place != c.eventSource {
				return &failure{"InvalidEventSource", "eventSource is not the one of the channel"}
			}
		case "eventTime":
			t, err := time.Parse(eventTimeShape, string(v))
			if err != nil || len(v) != len(eventTimeShape) {
				return &failure{"InvalidData", "eventTime is not of the form yyyy-MM-ddTHH:mm:ssZ"}
			}
			e.At = t
		case "UID":
			e.UID = string(v)
		case "sourceIPAddress":
			a, err := netip.ParseAddr(string(v))
			if err != nil || a.Zone() != "" {
				return &failure{"InvalidData", "sourceIPAddress is not an IPv4 or IPv6 address"}
			}
		case "recipientAccountId":
			if string(v) != account {
				return &failure{"InvalidRecipient", "recipientAccountId is not the account that owns the channel"}
			}
		}
		return nil
	})
	if f == nil && end(d) != nil {
		f = &failure{"InvalidData", "eventData is not a JSON object"}
	}
	return f
}

// fields reads an object against a table. str is called with each string.
func (c *checker) fields(d *jsontext.Decoder, path string, table []field, str func(name string, v []byte) *failure) *failure {
	var seen uint32
	var failed *failure
	err := object(d, func(name string) error {
		i := slices.IndexFunc(table, func(f field) bool { return f.name == name })
		if i < 0 {
			failed = &failure{"InvalidData", "eventData has a field that is not in its schema"}
			return failed
		}
		f := &table[i]
		if seen&(1<<i) != 0 {
			failed = &failure{"InvalidData", path + f.name + " is there twice"}
			return failed
		}
		seen |= 1 << i
		if failed = c.field(d, path, f, str); failed != nil {
			return failed
		}
		return nil
	})
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return &failure{"InvalidData", "eventData is not valid JSON"}
	}
	for i := range table {
		if table[i].required && seen&(1<<i) == 0 {
			return &failure{"FieldNotFound", path + table[i].name + " is required"}
		}
	}
	return nil
}

func (c *checker) field(d *jsontext.Decoder, path string, f *field, str func(name string, v []byte) *failure) *failure {
	kind := d.PeekKind()
	switch {
	case kind == 'n' && f.required:
		return &failure{"FieldNotFound", path + f.name + " is required"}
	case f.name == "userIdentity" && kind == '{':
		return c.fields(d, "userIdentity.", identityFields, func(string, []byte) *failure { return nil })
	case kind != '{' && kind != '"', f.object != (kind == '{'):
		return &failure{"InvalidData", path + f.name + " has the wrong type"}
	}
	v, err := d.ReadValue()
	switch {
	case err != nil:
		return &failure{"InvalidData", "eventData is not valid JSON"}
	case !f.object:
		c.buf, _ = jsontext.AppendUnquote(c.buf[:0], v)
		return c.text(path, f, c.buf, str)
	case f.limit > 0 && len(v) > f.limit:
		return &failure{"FieldTooLong", path + f.name + " is too long"}
	}
	return nil
}

// text checks a field that is a string.
func (c *checker) text(path string, f *field, v []byte, str func(name string, v []byte) *failure) *failure {
	switch {
	case f.limit > 0 && len(v) > f.limit && f.name != "eventTime":
		return &failure{"FieldTooLong", path + f.name + " is too long"}
	case f.required && len(v) == 0:
		return &failure{"InvalidData", path + f.name + " is empty"}
	}
	return str(f.name, v)
}
