package redisconn

import (
	"io"
	"net"
	"testing"
	"time"
)

// A clock that was set back is a pause like any other: nobody knows how long it was.
func TestClockSetBackIsAPause(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	go func() { _, _ = io.Copy(io.Discard, server) }()
	c := &conn{Conn: client}
	c.used.Store(wall() + int64(time.Hour))
	if _, err := c.Write([]byte("PING\r\n")); err != nil || !c.resumed.Load() {
		t.Errorf("resumed %t, %v", c.resumed.Load(), err)
	}
}
