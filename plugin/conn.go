package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/Kong/go-pdk"
	"github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/proto"
)

// conn is a connection from Kong. go-pdk asks Kong through it. It writes only when it
// has to read: then Kong gets all that it needs to go on at once, and is woken once.
type conn struct {
	net.Conn
	r *bufio.Reader
	w *bufio.Writer

	// Of the event that is being handled:
	end       []byte // what ends it; nil outside of events and once it was written
	endsEarly bool   // the end is sent with the first question
	asked     int    // how often Kong was asked, or would have been after the end
}

// maxFrame bounds a call, in bytes. The largest holds a configuration.
const maxFrame = 16 << 20

var (
	errEnded    = errors.New("the event has ended")
	errStopping = errors.New("the process is about to end")
)

// handle runs an event and writes ret after it.
//
// Kong reads in an event loop, so each time that it waits for the plugin costs it a
// turn. If the event is going to ask one question, the end of the event is sent
// with it: Kong answers the question, finds the end behind it, and waits once. The
// answer is read after Kong is done with the event.
func (c *conn) handle(i *instance, kong *pdk.PDK, ret *kong_plugin_protocol.RpcReturn) error {
	data, err := proto.Marshal(ret)
	if err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	c.end = appendFrame(appendFrame(nil, nil), data)
	c.asked = 0
	if c.endsEarly = i.asksOnce.Load() && i.config.expect(); c.endsEarly {
		defer i.config.senders.arrive()
	}
	i.config.Log(kong)
	i.asksOnce.Store(c.asked == 1)
	if i.config.senders.takesNone() {
		return errStopping // Kong handles the event again, with the process after this one
	}
	return c.writeEnd()
}

// Read reads what Kong answers, after it has sent what was written.
func (c *conn) Read(p []byte) (int, error) {
	if c.w.Buffered() > 0 {
		c.asked++
		if c.endsEarly {
			if err := c.writeEnd(); err != nil {
				return 0, err
			}
		}
		if err := c.w.Flush(); err != nil {
			return 0, err
		}
	}
	return c.r.Read(p)
}

// Write writes a part of a question. It fails once the event has ended.
func (c *conn) Write(p []byte) (int, error) {
	if c.end == nil {
		c.asked++
		return 0, errEnded
	}
	return c.w.Write(p)
}

func (c *conn) writeEnd() error {
	end := c.end
	c.end, c.endsEarly = nil, false
	_, err := c.w.Write(end)
	return err
}

// A frame is a length, a little-endian uint32, and as many bytes.

func (c *conn) readFrame() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, fmt.Errorf("a call of %d bytes is too large", n)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(c, data)
	return data, err
}

func appendFrame(b, data []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
}
