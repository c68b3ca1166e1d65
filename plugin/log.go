package main

import (
	"encoding/json"
	"iter"
	"strings"

	"github.com/Kong/go-pdk"
	"github.com/Kong/go-pdk/bridge"
	"github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// idHeader carries the request_id of the audit log's entry on every response of
// Kong Enterprise's Admin API.
const idHeader = "X-Kong-Admin-Request-ID"

// Log runs after each response. It asks Kong for one header, puts the id into a
// queue and returns. More calls happen only where they are asked for or needed:
// all headers, if that one came empty; the request, if the configuration
// filters; and a line for Kong's log, once for a wrong configuration and at most
// once a minute for a relay that does not answer.
func (c *Config) Log(kong *pdk.PDK) {
	// The process serves every worker of Kong: nothing in one event may end it.
	defer func() {
		if v := recover(); v != nil {
			c.senders.logger.Error("recovered in the log phase", "panic", v)
		}
	}()
	id, err := askString(kong.Response.PdkBridge, "kong.response.get_header", bridge.WrapString(idHeader))
	if err == nil && len(id) == 0 && !answeredWith(kong, idHeader) {
		return // not a response of the Admin API
	}
	if err == nil && c.filtered() && !c.asked(kong) {
		return
	}
	report := c.ring(announceable(string(id)))
	if err == nil && report != "" {
		if err := kong.Log.Err(report); err != nil {
			c.senders.logger.Info("a line for Kong's log was not taken", "error", err)
		}
	}
}

// ring hands the id to the sender of these settings. It returns what Kong's log
// should say, if anything.
func (c *Config) ring(id string) string {
	var report string
	if len(c.problems) > 0 && !c.report.said.Swap(true) {
		report = "wrong configuration of " + name + c.entity + ": " + strings.Join(c.problems, "; ")
	}
	if c.unusable {
		return report
	}
	if trouble := c.senders.ring(c.settings(), id); report == "" {
		report = trouble
	}
	return report
}

// asked tells whether the request passes the filters. It does if Kong cannot
// tell what the request was.
func (c *Config) asked(kong *pdk.PDK) bool {
	text, err := askString(kong.Log.PdkBridge, "kong.log.serialize", nil)
	if err != nil {
		return true
	}
	// upstream_uri is the path that reached the Admin API, with its query;
	// request.uri still has the route's own path before it.
	var event struct {
		UpstreamURI string `json:"upstream_uri"`
		Request     struct {
			Method string `json:"method"`
			URI    string `json:"uri"`
		} `json:"request"`
	}
	if json.Unmarshal(text, &event) != nil || event.Request.Method == "" {
		return true
	}
	path := event.UpstreamURI
	if path == "" {
		path = event.Request.URI
	}
	return c.wanted(event.Request.Method, path)
}

// answeredWith tells whether the response has a header, empty or not. Kong's
// encoder (lua-protobuf, in kong/runloop/plugin_servers/rpc/pb_rpc.lua) leaves
// out an empty field of proto3, so that "" is the same answer to get_header as
// none. To get_headers it answers with a map, whose keys are always written.
//
// Where the call fails there is no ring: mostly the header is missing, not
// empty, and a route that is not the Admin API's must not ring for each of its
// responses. An entry whose id is empty is found on the relay's schedule.
func answeredWith(kong *pdk.PDK, header string) bool {
	// Kong takes up to 1000; in the log phase it answers with those it has kept.
	headers, err := ask(kong.Response.PdkBridge, "kong.response.get_headers", &kong_plugin_protocol.Int{V: 1000})
	found := false
	for entry := range fields(headers, 1) {
		for name := range fields(entry, 1) {
			found = found || strings.EqualFold(string(name), header) // nginx's names are in lower case
		}
	}
	return err == nil && found
}

// askString calls a method of Kong's that answers with a string.
func askString(b bridge.PdkBridge, method string, args proto.Message) ([]byte, error) {
	message, err := ask(b, method, args)
	var value []byte
	for text := range fields(message, 1) {
		value = text
	}
	return value, err
}

// ask calls a method of Kong's and returns the message that it answers with.
//
// go-pdk's own ways fail on text that is not UTF-8 (a %ff in a query is enough).
// So the answer is read as a message without fields, which keeps what it does
// not know as it came.
func ask(b bridge.PdkBridge, method string, args proto.Message) ([]byte, error) {
	var out emptypb.Empty
	err := b.Ask(method, args, &out)
	return out.ProtoReflect().GetUnknown(), err
}

// fields yields the values of a message's field that holds bytes, text or
// messages, as long as it can be read.
func fields(message []byte, number protowire.Number) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(message) > 0 {
			num, kind, n := protowire.ConsumeTag(message)
			if n < 0 {
				return
			}
			message = message[n:]
			if n = protowire.ConsumeFieldValue(num, kind, message); n < 0 {
				return
			}
			if num == number && kind == protowire.BytesType {
				value, _ := protowire.ConsumeBytes(message)
				if !yield(value) {
					return
				}
			}
			message = message[n:]
		}
	}
}

// announceable returns the id to announce for a header's value: none where it
// is empty, as in some releases before 3.4, or not an id.
func announceable(value string) string {
	if trigger.ValidID(value) {
		return value
	}
	return ""
}
