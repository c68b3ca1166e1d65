// Package ocsf maps entries to events of the Open Cybersecurity Schema Framework
// 1.8.0, class API Activity (6003), for destinations that keep any JSON.
package ocsf

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Version is that of the schema.
const Version = "1.8.0"

const (
	categoryUID = 6 // Application Activity
	classUID    = 6003
)

// Activities.
const (
	activityCreate = 1
	activityRead   = 2
	activityUpdate = 3
	activityDelete = 4
	activityOther  = 99
)

type (
	event struct {
		ActivityID   int           `json:"activity_id"`
		CategoryUID  int           `json:"category_uid"`
		ClassUID     int           `json:"class_uid"`
		TypeUID      int           `json:"type_uid"`
		SeverityID   int           `json:"severity_id"`
		StatusID     int           `json:"status_id"`
		StatusCode   string        `json:"status_code,omitempty"`
		Time         int64         `json:"time"` // milliseconds
		Metadata     metadata      `json:"metadata"`
		Actor        actor         `json:"actor"`
		API          api           `json:"api"`
		HTTPRequest  httpRequest   `json:"http_request"`
		HTTPResponse *httpResponse `json:"http_response,omitempty"`
		SrcEndpoint  endpoint      `json:"src_endpoint"`
		DstEndpoint  *endpoint     `json:"dst_endpoint,omitempty"`
		RawData      string        `json:"raw_data,omitempty"`
		RawDataHash  *fingerprint  `json:"raw_data_hash,omitempty"`
		RawDataSize  int           `json:"raw_data_size,omitzero"`
		Unmapped     unmapped      `json:"unmapped"`
	}
	metadata struct {
		UID           string  `json:"uid"`
		Version       string  `json:"version"`
		Product       product `json:"product"`
		LogName       string  `json:"log_name"`
		TenantUID     string  `json:"tenant_uid,omitempty"`
		OriginalTime  string  `json:"original_time"`
		ProcessedTime int64   `json:"processed_time"`
		IsTruncated   bool    `json:"is_truncated,omitzero"`
	}
	product struct {
		Name       string  `json:"name"`
		VendorName string  `json:"vendor_name"`
		Version    string  `json:"version,omitempty"`
		Feature    feature `json:"feature"`
	}
	feature struct {
		Name string `json:"name"`
	}
	actor struct {
		User    user   `json:"user"`
		AppName string `json:"app_name,omitempty"`
	}
	user struct {
		UID  string `json:"uid"`
		Name string `json:"name,omitempty"`
	}
	api struct {
		Operation string        `json:"operation"`
		Request   request       `json:"request"`
		Response  *httpResponse `json:"response,omitempty"`
		Service   feature       `json:"service"`
	}
	request struct {
		UID string `json:"uid"`
	}
	httpRequest struct {
		Method string   `json:"http_method,omitempty"`
		UID    string   `json:"uid"`
		URL    *address `json:"url,omitempty"`
	}
	address struct {
		Path        string `json:"path"`
		QueryString string `json:"query_string,omitempty"`
	}
	httpResponse struct {
		Code int `json:"code"`
	}
	endpoint struct {
		IP       string `json:"ip,omitempty"`
		Hostname string `json:"hostname,omitempty"`
		Name     string `json:"name,omitempty"`
		Port     int    `json:"port,omitzero"`
	}
	fingerprint struct {
		AlgorithmID int    `json:"algorithm_id"`
		Value       string `json:"value"`
	}
	// unmapped holds what the class has no place for.
	unmapped struct {
		Payload               jsontext.Value     `json:"payload,omitempty"`
		RemovedFromPayload    string             `json:"removed_from_payload,omitempty"`
		Signature             string             `json:"signature,omitempty"`
		SignatureVerification string             `json:"signature_verification,omitempty"`
		TTL                   *int64             `json:"ttl,omitempty"`
		Kong                  jsontext.Value     `json:"kong,omitempty"`
		ClientIP              string             `json:"client_ip,omitempty"`
		Method                string             `json:"method,omitempty"`
		RequestID             string             `json:"request_id,omitempty"`
		NameNote              string             `json:"rbac_user_name_note,omitempty"`
		ResponseElements      jsontext.Value     `json:"response_elements,omitempty"`
		Truncated             map[string]cutting `json:"truncated,omitempty"`
	}
)

// nameNote qualifies actor.user.name.
const nameNote = "as recorded by Kong, not verified: the client may have set it"

// methods are those of the schema's enumeration, with the activity of each.
var methods = map[string]int{
	"POST": activityCreate,
	"GET":  activityRead, "HEAD": activityRead, "OPTIONS": activityRead,
	"PUT": activityUpdate, "PATCH": activityUpdate,
	"DELETE":  activityDelete,
	"CONNECT": activityOther, "TRACE": activityOther,
}

// Encoder maps entries to events. It is safe for concurrent use.
type Encoder struct {
	admin *endpoint // the Admin API; nil if it is not known
	now   func() time.Time
}

// New returns an Encoder. adminAPI is the Admin API's URL as configured, and may
// be empty; now is the relay's clock.
func New(adminAPI string, now func() time.Time) *Encoder {
	e := &Encoder{now: now}
	u, err := url.Parse(adminAPI)
	if err != nil || u.Hostname() == "" {
		return e
	}
	to := endpointOf(u.Hostname())
	to.Port, _ = strconv.Atoi(u.Port()) // 0 where the URL has none
	if to.Port == 0 && u.Scheme == "https" {
		to.Port = 443
	} else if to.Port == 0 {
		to.Port = 80
	}
	e.admin = &to
	return e
}

// endpointOf is an endpoint known by an address or a name.
func endpointOf(host string) endpoint {
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() == "" {
		return endpoint{IP: a.Unmap().String()}
	}
	return endpoint{Hostname: host}
}

// AppendEvent is an [audit.Encode] whose events the schema takes. They have at most
// [MaxEvent] bytes.
func (enc *Encoder) AppendEvent(dst []byte, e *audit.Entry) []byte {
	ev := enc.event(e)
	text, err := json.Marshal(&ev, options...)
	if err != nil { // strings and numbers always encode, and the two values were checked
		ev.Unmapped.Payload, ev.Unmapped.Kong = nil, nil
		text, _ = json.Marshal(&ev, options...)
	}
	return append(dst, ev.withChanges(text, e.Changes)...)
}

// withChanges returns the text of the event with what the request changed. Where there
// is no room for it, raw_data is dropped first.
func (ev *event) withChanges(text []byte, changes string) []byte {
	v := jsontext.Value(changes)
	if v.Kind() != '{' || !v.IsValid() {
		return text
	}
	ev.Unmapped.ResponseElements = v
	c := cutter{ev.Unmapped.Truncated}
	for range 3 {
		whole, err := json.Marshal(ev, options...)
		switch {
		case err != nil: // the value was checked
			return text
		case len(whole) <= MaxEvent:
			return whole
		case ev.RawData != "":
			ev.withoutRaw(&c, ev.RawData)
		default:
			c.cut("unmapped.response_elements", changes)
			ev.Unmapped.ResponseElements = nil
		}
		ev.Unmapped.Truncated, ev.Metadata.IsTruncated = c.cuts, true
	}
	return text
}

// options make JSON of whatever Kong recorded: bytes that are not UTF-8 become
// U+FFFD, and what an object holds twice stays.
var options = []json.Options{jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true)}

func (enc *Encoder) event(e *audit.Entry) event {
	var c cutter
	activity, known := methods[e.Method]
	if !known {
		activity = activityOther
	}
	path, query, _ := strings.Cut(e.Path, "?")
	uid := c.text("metadata.uid", e.ID, maxShort)
	ev := event{
		ActivityID: activity, CategoryUID: categoryUID, ClassUID: classUID, TypeUID: classUID*100 + activity,
		SeverityID: 1, // Informational
		Time:       e.EventTime() * 1000,
		Metadata: metadata{
			UID: uid, Version: Version, LogName: "audit_requests",
			Product: product{
				Name: "Kong Gateway", VendorName: "Kong", Version: c.text("metadata.product.version", e.KongVersion, maxShort),
				Feature: feature{Name: "Admin API"},
			},
			TenantUID:    c.text("metadata.tenant_uid", e.Workspace, maxShort),
			OriginalTime: strconv.FormatInt(e.Timestamp, 10), ProcessedTime: enc.now().UnixMilli(),
		},
		Actor: actor{
			User:    user{UID: "anonymous", Name: c.text("actor.user.name", e.RBACUserName, maxShort)},
			AppName: c.text("actor.app_name", e.RequestSource, maxShort),
		},
		API: api{
			Operation: c.text("api.operation", strings.TrimSpace(e.Method+" "+path), maxShort),
			Request:   request{UID: uid}, Service: feature{Name: "kong-admin-api"},
		},
		HTTPRequest: httpRequest{UID: uid},
		SrcEndpoint: endpointOf(e.ClientIP),
		DstEndpoint: enc.admin,
		Unmapped:    enc.unmapped(&c, e),
	}
	if e.RBACUserID != "" {
		ev.Actor.User.UID = c.text("actor.user.uid", e.RBACUserID, maxShort)
	}
	if e.RBACUserName != "" {
		ev.Unmapped.NameNote = nameNote
	}
	if known {
		ev.HTTPRequest.Method = e.Method
	} else {
		ev.Unmapped.Method = c.text("unmapped.method", e.Method, maxShort)
	}
	if path != "" {
		ev.HTTPRequest.URL = &address{Path: c.text("http_request.url.path", path, maxLong), QueryString: c.text("http_request.url.query_string", query, maxQuery)}
	}
	if ev.SrcEndpoint.IP == "" { // a name that is not an address was not resolved
		ev.SrcEndpoint = endpoint{Name: "unknown"}
		ev.Unmapped.ClientIP = c.text("unmapped.client_ip", e.ClientIP, maxShort)
	}
	ev.status(e.Status)
	ev.raw(&c, e)
	ev.Unmapped.Truncated = c.cuts
	ev.Metadata.IsTruncated = len(c.cuts) > 0
	return ev
}

// status sets the fields that follow from the response's status; 0 means that there is none.
func (ev *event) status(status int) {
	if status == 0 {
		return
	}
	ev.StatusID, ev.StatusCode = 1, strconv.Itoa(status)
	if status >= 400 {
		ev.StatusID = 2
	}
	ev.HTTPResponse = &httpResponse{Code: status}
	ev.API.Response = ev.HTTPResponse
}

func (enc *Encoder) unmapped(c *cutter, e *audit.Entry) unmapped {
	u := unmapped{
		RemovedFromPayload:    c.text("unmapped.removed_from_payload", e.RemovedFromPayload, maxRemoved),
		Signature:             c.text("unmapped.signature", e.Signature, maxLong),
		SignatureVerification: c.text("unmapped.signature_verification", string(e.Verification), maxShort),
	}
	if e.Payload != "" || e.EmptyPayload {
		u.Payload = c.value("unmapped.payload", e.Payload, maxPayload)
	}
	if e.Unknown != "" && e.Unknown != "{}" {
		u.Kong = c.value("unmapped.kong", e.Unknown, maxUnknown)
	}
	if e.TTL != audit.NoTTL {
		u.TTL = &e.TTL
	}
	if e.RequestID != e.ID {
		u.RequestID = c.text("unmapped.request_id", e.RequestID, maxShort)
	}
	return u
}
