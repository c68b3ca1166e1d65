package main

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// content is what an event must tell of its row, written down from the table of
// the event, not from the code that maps it.
type content struct {
	requestID string // of the row; not compared
	Name      string
	UID       string
	Time      string
	Address   string
	Principal string
	Payload   string // an object in one form, or text
	Truncated bool   // the destination takes no payload so large
}

// maxParameters is what CloudTrail takes as requestParameters, in bytes.
const maxParameters = 100_000

func contentOf(r *auditlog.Row, id string) content {
	path, _, _ := strings.Cut(r.Path, "?")
	if path = strings.TrimRight(path, "/"); path == "" {
		path = "/"
	}
	c := content{
		requestID: r.RequestID, Name: r.Method + path, UID: id, Address: r.ClientIP, Principal: "anonymous",
		Time: time.Unix(r.RequestTimestamp, 0).UTC().Format("2006-01-02T15:04:05Z"),
	}
	if r.RBACUserID != nil && *r.RBACUserID != "" {
		c.Principal = *r.RBACUserID
	}
	if r.Payload != nil {
		c.Truncated = len(*r.Payload) > maxParameters
		c.Payload = onePayload([]byte(*r.Payload))
	}
	return c
}

// onePayload is a JSON object in one form, and any other text as it is.
func onePayload(text []byte) string {
	object := jsontext.Value(text).Clone()
	if object.Kind() == '{' && object.Format(jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false), jsontext.ReorderRawObjects(true), jsontext.AllowDuplicateNames(true)) == nil {
		return string(object)
	}
	return string(text)
}

// eventContent reads an event.
func eventContent(t *testing.T, data string, want *content) content {
	t.Helper()
	var e struct {
		EventName, UID, EventTime, SourceIPAddress string
		UserIdentity                               struct{ PrincipalID string }
		RequestParameters                          struct{ Payload jsontext.Value }
		AdditionalEventData                        struct{ Truncated map[string]jsontext.Value }
	}
	if err := decode([]byte(data), &e); err != nil {
		t.Fatalf("event of %q: %v", want.UID, err)
	}
	c := content{Name: e.EventName, UID: e.UID, Time: e.EventTime, Address: e.SourceIPAddress, Principal: e.UserIdentity.PrincipalID}
	for path := range e.AdditionalEventData.Truncated {
		c.Truncated = c.Truncated || strings.HasPrefix(path, "requestParameters.payload")
	}
	var text string
	if json.Unmarshal(e.RequestParameters.Payload, &text) == nil {
		c.Payload = text
	} else {
		c.Payload = onePayload(e.RequestParameters.Payload)
	}
	return c
}

// digest is of everything that must arrive.
func (c *content) digest() [sha256.Size]byte {
	d := *c
	if d.requestID = ""; d.Truncated {
		d.Payload = ""
	}
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // strings always encode
	}
	return sha256.Sum256(b)
}

// differs names the fields that differ; never their values.
func (c *content) differs(o *content) string {
	var names []string
	for name, same := range map[string]bool{
		"eventName": c.Name == o.Name, "UID": c.UID == o.UID, "eventTime": c.Time == o.Time, "sourceIPAddress": c.Address == o.Address,
		"principalId": c.Principal == o.Principal, "payload": c.Payload == o.Payload || c.Truncated, "truncated": c.Truncated == o.Truncated,
	} {
		if !same {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// entryOf is the identity of a row, and what it is made of.
func entryOf(r *auditlog.Row) audit.Entry {
	text := func(name string, s *string) string {
		if s == nil || slices.Contains(r.Omit, name) {
			return ""
		}
		return *s
	}
	e := audit.Entry{
		RequestID: r.RequestID, Timestamp: r.RequestTimestamp, ClientIP: r.ClientIP, Method: r.Method, Path: r.Path, Status: r.Status,
		Workspace: text("workspace", r.Workspace), Payload: text("payload", r.Payload),
		RemovedFromPayload: text("removed_from_payload", r.RemovedFromPayload), Signature: text("signature", r.Signature),
		RBACUserID: text("rbac_user_id", r.RBACUserID), RBACUserName: text("rbac_user_name", r.RBACUserName),
		RequestSource: text("request_source", r.RequestSource),
	}
	e.ID = audit.Identity(&e)
	return e
}
