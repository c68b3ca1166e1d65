package main

import (
	"bytes"
	"cmp"
	"errors"
	"strings"

	"github.com/Kong/go-pdk"
	"github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// idHeader carries the request_id of the audit log's entry on every response of
// Kong Enterprise's Admin API.
const idHeader = "X-Kong-Admin-Request-ID"

// Log runs after each response. It asks Kong for one header, or for the request and
// its response if the configuration filters, puts the id into a queue and returns. It
// asks Kong again only if that header is empty, or to write a line to Kong's log.
//
// One event in a spell of idleness waits until its trigger has been answered; see
// senders.notify. No request waits for it.
func (c *Config) Log(kong *pdk.PDK) {
	// The process serves every worker of Kong, so no event may end it.
	defer func() {
		if v := recover(); v != nil {
			c.senders.logger.Error("recovered in the log phase", "panic", v)
		}
	}()
	id, announced, err := c.ask(kong)
	if !announced {
		return
	}
	if !trigger.ValidID(id) {
		id = "" // some releases before 3.4 send an empty one
	}
	line := c.notify(id)
	if line == "" || err != nil {
		return
	}
	if err := kong.Log.Err(line); err != nil {
		c.senders.logger.Info("Kong did not accept a line for its log", "err", err)
	}
}

// ask returns the id of the request, which may be any text, and whether the request
// is to be announced. If Kong cannot say that it is not, it is. An error means that
// the connection is lost.
func (c *Config) ask(kong *pdk.PDK) (id string, announced bool, err error) {
	if len(c.Methods) > 0 || len(c.ignore) > 0 { // else neither matters
		e := serialize(kong)
		if e.Request.Method != "" && !c.wanted(e.Request.Method, cmp.Or(e.UpstreamURI, e.Request.URI)) {
			return "", false, nil
		}
		if headers := e.Response.Headers; headers != nil {
			_ = json.Unmarshal(headers.ID, &id, lenient) // a list of several is not an id
			return id, headers.ID != nil, nil
		}
	}
	id, err = kong.Response.GetHeader(idHeader)
	if errors.Is(err, proto.Error) {
		return "", true, nil // Kong sends a header's bytes as they are, and go-pdk accepts only UTF-8
	}
	// Without an error and an id: is this a response of the Admin API?
	return id, err != nil || id != "" || hasHeader(kong, idHeader), err
}

// notify passes the id, or "" for a poll, to the sender of these settings. It
// returns a line for Kong's log, or "".
func (c *Config) notify(id string) string {
	var line string
	if len(c.problems) > 0 && !c.report.done.Swap(true) {
		line = "wrong configuration of " + name + c.entity + ": " + strings.Join(c.problems, "; ")
	}
	if c.unusable {
		return line
	}
	if trouble := c.senders.notify(c.settings(), id); line == "" {
		line = trouble
	}
	return line
}

// event is what kong.log.serialize says of a request and its response. A field that a plugin such as
// http-log has taken out (custom_fields_by_lua) is missing.
type event struct {
	// UpstreamURI is the path that reached the Admin API, with its query. In Request.URI it still
	// begins with the route's path.
	UpstreamURI string `json:"upstream_uri"`
	Request     struct {
		Method string `json:"method"`
		URI    string `json:"uri"`
	} `json:"request"`
	Response struct {
		Headers *struct {
			ID jsontext.Value `json:"x-kong-admin-request-id"` // a string, or a list of several
		} `json:"headers"`
	} `json:"response"`
}

// serialize returns an empty event if Kong does not answer, or not as Kong does.
func serialize(kong *pdk.PDK) (e event) {
	// A BytesValue has the form of the String that Kong sends, but it may hold any
	// bytes. go-pdk's Serialize fails on those that are not UTF-8: a %ff in the
	// query is enough.
	var text wrapperspb.BytesValue
	if err := kong.Log.Ask("kong.log.serialize", nil, &text); err != nil {
		return event{}
	}
	if json.Unmarshal(text.GetValue(), &e, lenient) != nil {
		return event{}
	}
	return e
}

// hasHeader reports whether the response has a header, even an empty one. GetHeader
// returns "" in both cases, because Kong's encoder leaves out an empty field
// (lua-protobuf, in kong/runloop/plugin_servers/rpc/pb_rpc.lua).
//
// The answer is a map whose keys are the names in lower case, each in a protobuf
// field 1. It is searched as bytes: go-pdk's GetHeaders fails if any value is not
// UTF-8. No value can be taken for a key, since the field begins with a line feed.
//
// If Kong does not answer, hasHeader returns false: on a route that is not the
// Admin API's there must not be a trigger for each response, and an entry with an
// empty id is found on the relay's schedule. If the event has ended already, the one
// before it had an id, so this is the Admin API's route, and hasHeader returns true.
func hasHeader(kong *pdk.PDK, header string) bool {
	var headers emptypb.Empty // keeps what it does not know
	// Kong allows up to 1000 here. In the log phase it answers with those it has kept.
	err := kong.Response.Ask("kong.response.get_headers", &kong_plugin_protocol.Int{V: 1000}, &headers)
	if errors.Is(err, errEnded) {
		return true
	}
	key := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), strings.ToLower(header))
	return err == nil && bytes.Contains(headers.ProtoReflect().GetUnknown(), key)
}
