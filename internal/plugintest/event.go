package plugintest

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Event is a request that Kong has answered, with what a plugin can ask for in the
// log phase.
type Event struct {
	Method      string            // GET if empty
	Path        string            // with its query, as the client sent it; may hold any bytes
	UpstreamURI string            // what the Service got; Path if empty
	Headers     map[string]string // of the response; may hold any bytes

	// Serialized, if set, is what kong.log.serialize returns. Another plugin's
	// custom_fields_by_lua can take fields out.
	Serialized string

	// Fail lists methods of the PDK that fail. In Kong a failed call closes the
	// connection and so ends the event.
	Fail []string
}

// conn is a connection to the plugin.
type conn struct {
	net.Conn
	r     *bufio.Reader
	waits *atomic.Int64
}

// maxFrame bounds a frame that the host reads, in bytes.
const maxFrame = 16 << 20

func (c *conn) read() ([]byte, error) {
	if c.r.Buffered() == 0 {
		c.waits.Add(1)
	}
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(c.r, data)
	return data, err
}

func (c *conn) write(data []byte) error {
	frame := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data)))
	_, err := c.Write(append(frame, data...))
	return err
}

// call makes one call, and answers the plugin's own calls about e in between. An error says what it was doing.
func (h *Host) call(ctx context.Context, doing string, m *kong_plugin_protocol.RpcCall, e *Event) (*kong_plugin_protocol.RpcReturn, error) {
	var (
		c   *conn
		ret *kong_plugin_protocol.RpcReturn
		err error
	)
	select {
	case c = <-h.idle:
	default:
		if c, err = h.dial(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	ret, err = h.exchange(c, m, e)
	if stop() && err == nil {
		h.keep(c)
		return ret, nil
	}
	_ = c.Close()
	if err = cmp.Or(ctx.Err(), err); err != nil {
		err = fmt.Errorf("%s: %w", doing, err)
	}
	return ret, err
}

func (h *Host) exchange(c *conn, m *kong_plugin_protocol.RpcCall, e *Event) (*kong_plugin_protocol.RpcReturn, error) {
	m.Sequence = h.sequence.Add(1)
	data, err := proto.Marshal(m)
	if err == nil {
		err = c.write(data)
	}
	for e != nil && err == nil {
		var method, args, answer []byte
		if method, err = c.read(); err != nil || len(method) == 0 {
			break
		}
		if args, err = c.read(); err == nil {
			answer, err = h.answer(string(method), args, e)
		}
		if err == nil {
			err = c.write(answer)
		}
	}
	if err == nil {
		data, err = c.read()
	}
	if err != nil {
		return nil, err
	}
	ret := &kong_plugin_protocol.RpcReturn{}
	if err := proto.Unmarshal(data, ret); err != nil {
		return nil, err
	}
	if ret.GetSequence() != m.GetSequence() {
		return nil, errors.New("the answer belongs to another call")
	}
	return ret, nil
}

// answer returns Kong's answer to a call of the PDK in the log phase. An error closes
// the connection, as it does in Kong.
func (h *Host) answer(method string, args []byte, e *Event) ([]byte, error) {
	h.mu.Lock()
	h.calls[method]++
	h.mu.Unlock()
	if slices.Contains(e.Fail, method) {
		return nil, fmt.Errorf("%s fails", method)
	}
	switch method {
	case "kong.response.get_header":
		var name kong_plugin_protocol.String
		if err := proto.Unmarshal(args, &name); err != nil {
			return nil, err
		}
		for key, value := range e.Headers {
			if strings.EqualFold(key, name.GetV()) {
				return rawString(value)
			}
		}
		return nil, nil
	case "kong.response.get_headers":
		return rawHeaders(e.Headers), nil
	case "kong.log.serialize":
		return rawString(e.serialize())
	}
	if level, ok := strings.CutPrefix(method, "kong.log."); ok {
		return nil, h.line(level, args)
	}
	return nil, fmt.Errorf("%s is not known to work in the log phase", method)
}

func (h *Host) line(level string, args []byte) error {
	var list structpb.ListValue
	if err := proto.Unmarshal(args, &list); err != nil {
		return err
	}
	var text strings.Builder
	for _, v := range list.GetValues() {
		fmt.Fprint(&text, v.AsInterface())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.lines) < maxLines {
		h.lines = append(h.lines, Line{Level: level, Text: text.String()})
	}
	return nil
}

// rawString encodes s as the message String in the way of lua-protobuf, which Kong
// uses: it does not check for UTF-8, and it leaves out an empty field, so that "" and
// nil look the same. A BytesValue has the same form.
func rawString(s string) ([]byte, error) { return proto.Marshal(wrapperspb.Bytes([]byte(s))) }

// rawHeaders encodes headers as a Struct in the same way. In a map and in a oneof an
// empty string is not left out.
func rawHeaders(headers map[string]string) []byte {
	field := func(b []byte, number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
	}
	var message []byte
	for name, value := range headers {
		entry := field(nil, 2, field(nil, 3, []byte(value))) // string_value of a Value
		message = field(message, 1, field(entry, 1, []byte(strings.ToLower(name))))
	}
	return message
}

// serialize returns a part of what kong.log.serialize does, in the way of lua-cjson:
// the bytes of the request and of the response stay as they came.
func (e *Event) serialize() string {
	if e.Serialized != "" {
		return e.Serialized
	}
	uri := cmp.Or(e.Path, "/")
	var headers []string
	for name, value := range e.Headers {
		headers = append(headers, quote(strings.ToLower(name))+":"+quote(value))
	}
	return fmt.Sprintf(`{"request":{"method":%s,"uri":%s,"headers":{"host":"localhost"}},"upstream_uri":%s,"response":{"status":200,"headers":{%s}}}`,
		quote(cmp.Or(e.Method, "GET")), quote(uri), quote(cmp.Or(e.UpstreamURI, uri)), strings.Join(headers, ","))
}

func quote(s string) string {
	b := []byte{'"'}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\' || c == '/':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}
