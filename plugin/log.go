package main

import (
	"encoding/json"
	"strings"

	"github.com/Kong/go-pdk"
	"github.com/Kong/go-pdk/bridge"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// idHeader carries the request_id of the audit log's entry on every response of
// Kong Enterprise's Admin API.
const idHeader = "X-Kong-Admin-Request-ID"

// Log runs after each response. It asks Kong for one header, puts the id into a
// queue and returns. Two more calls happen only where they are asked for or
// needed: the request, if the configuration filters, and a line for Kong's log,
// once for a wrong configuration and at most once a minute for a relay that
// does not answer.
func (c *Config) Log(kong *pdk.PDK) {
	// The process serves every worker of Kong: nothing in one event may end it.
	defer func() {
		if v := recover(); v != nil {
			c.senders.logger.Error("recovered in the log phase", "panic", v)
		}
	}()
	id, err := askString(kong.Response.PdkBridge, "kong.response.get_header", bridge.WrapString(idHeader))
	if err == nil && id == nil {
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
	if len(c.problems) > 0 {
		report = c.senders.once("wrong configuration of " + name + ": " + strings.Join(c.problems, "; "))
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

// askString calls a method of Kong's that answers with a string. It returns nil
// if there is none.
//
// It is go-pdk's AskString without two of its ways: that fails on text that is
// not UTF-8 (a %ff in a query is enough), and takes an absent value for an
// empty one. So the answer is read as a message without fields, which keeps
// what it does not know as it came. Field 1 of it is the string.
func askString(b bridge.PdkBridge, method string, args proto.Message) ([]byte, error) {
	var out emptypb.Empty
	if err := b.Ask(method, args, &out); err != nil {
		return nil, err
	}
	var value []byte
	for rest := []byte(out.ProtoReflect().GetUnknown()); len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		rest = rest[n:]
		if n = protowire.ConsumeFieldValue(number, kind, rest); n < 0 {
			return nil, protowire.ParseError(n)
		}
		if number == 1 && kind == protowire.BytesType {
			text, _ := protowire.ConsumeBytes(rest)
			value = append([]byte{}, text...)
		}
		rest = rest[n:]
	}
	return value, nil
}

// announceable returns the id to announce for a header's value: none where it
// is empty, as in some releases before 3.4, or not an id.
func announceable(value string) string {
	if trigger.ValidID(value) {
		return value
	}
	return ""
}
