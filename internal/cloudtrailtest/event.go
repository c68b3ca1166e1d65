package cloudtrailtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

// Limits of PutAuditEvents, from AWS's documentation. A kB counts as 1,000 bytes, and lengths
// count in bytes rather than characters, so what passes here passes however AWS counts.
const (
	MaxEvents      = 100       // events a call
	MaxBody        = 1_000_000 // bytes of a request's body
	MaxEvent       = 256_000   // bytes of one eventData
	MaxParameters  = 100_000   // bytes of requestParameters, and of responseElements
	MaxAdditional  = 28_000    // bytes of additionalEventData
	eventTimeShape = "2006-01-02T15:04:05Z"
)

// failure is why one event is refused. The other events of its call are not affected.
type failure struct {
	ID      string `json:"id"`
	Code    string `json:"errorCode"`
	Message string `json:"errorMessage"`
}

func refuse(code, message string) *failure { return &failure{Code: code, Message: message} }

func checksumMatches(data []byte, checksum string) bool {
	sum := sha256.Sum256(data)
	return checksum == base64.StdEncoding.EncodeToString(sum[:])
}

// field is a row of the table of eventData.
type field struct {
	name     string
	required bool
	limit    int // bytes; 0 for no limit
	object   bool
}

var eventFields = []field{
	{name: "version", required: true, limit: 256},
	{name: "userIdentity", required: true, object: true},
	{name: "userAgent", limit: 1024},
	{name: "eventSource", required: true, limit: 1024},
	{name: "eventName", required: true, limit: 1024},
	{name: "eventTime", required: true},
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

// check returns what is wrong with an event's data, or nil. It sets UID, Place and At of e to
// what the data says.
func (s *Server) check(data []byte, e *awstest.Event) *failure {
	switch {
	case len(data) > MaxEvent:
		return refuse("FieldTooLong", "the event is larger than 256 kB")
	case !utf8.Valid(data):
		return refuse("InvalidData", "eventData is not a JSON object")
	}
	event, f := readObject(data, "", eventFields)
	if f == nil {
		_, f = readObject([]byte(event["userIdentity"]), "userIdentity.", identityFields)
	}
	if f != nil {
		return f
	}
	var err error
	e.UID, e.Place = event["UID"], event["eventSource"]
	e.At, err = time.Parse(eventTimeShape, event["eventTime"])
	if err != nil || len(event["eventTime"]) != len(eventTimeShape) {
		return refuse("InvalidData", "eventTime is not of the form yyyy-MM-ddTHH:mm:ssZ")
	}
	if address, ok := event["sourceIPAddress"]; ok {
		if a, err := netip.ParseAddr(address); err != nil || a.Zone() != "" {
			return refuse("InvalidData", "sourceIPAddress is not an IPv4 or IPv6 address")
		}
	}
	switch {
	case event["recipientAccountId"] != account:
		return refuse("InvalidRecipient", "recipientAccountId is not the account that owns the channel")
	case s.o.EventSource != "" && e.Place != s.o.EventSource:
		return refuse("InvalidEventSource", "eventSource is not the one of the channel")
	}
	return nil
}

// jsonOptions accept what Kong may have recorded inside a payload: half of a surrogate pair,
// and duplicate names. check refuses bytes that are not UTF-8.
var jsonOptions = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// readObject checks an object against a table of fields. It returns the object's texts, and its
// objects as JSON. AWS does not say whether it accepts fields that its table does not have, a
// field twice, or null for an optional field: here they are InvalidData.
func readObject(data []byte, path string, table []field) (map[string]string, *failure) {
	notJSON := refuse("InvalidData", "eventData is not a JSON object")
	d := jsontext.NewDecoder(bytes.NewReader(data), jsonOptions...)
	if begin, err := d.ReadToken(); err != nil || begin.Kind() != '{' {
		return nil, notJSON
	}
	values := map[string]string{}
	for d.PeekKind() == '"' {
		token, err := d.ReadToken()
		if err != nil {
			return nil, notJSON
		}
		name := token.String()
		i := slices.IndexFunc(table, func(f field) bool { return f.name == name })
		if i < 0 {
			return nil, refuse("InvalidData", "eventData has a field that is not in its schema")
		}
		if _, twice := values[name]; twice {
			return nil, refuse("InvalidData", path+name+" is there twice")
		}
		v, err := d.ReadValue()
		if err != nil {
			return nil, notJSON
		}
		text, f := table[i].read(path, v)
		if f != nil {
			return nil, f
		}
		values[name] = text
	}
	_, err := d.ReadToken()
	if _, after := d.ReadToken(); err != nil || !errors.Is(after, io.EOF) {
		return nil, notJSON
	}
	for _, f := range table {
		if _, ok := values[f.name]; f.required && !ok {
			return nil, refuse("FieldNotFound", path+f.name+" is required")
		}
	}
	return values, nil
}

func (f *field) read(path string, v jsontext.Value) (string, *failure) {
	switch kind := v.Kind(); {
	case kind == 'n' && f.required:
		return "", refuse("FieldNotFound", path+f.name+" is required")
	case kind != '{' && kind != '"', f.object != (kind == '{'):
		return "", refuse("InvalidData", path+f.name+" has the wrong type")
	case kind == '"':
		v, _ = jsontext.AppendUnquote(nil, v) // half of a surrogate pair is an error, and accepted all the same
	}
	switch {
	case f.limit > 0 && len(v) > f.limit:
		return "", refuse("FieldTooLong", path+f.name+" is too long")
	case f.required && len(v) == 0:
		return "", refuse("InvalidData", path+f.name+" is empty")
	}
	return string(v), nil
}
