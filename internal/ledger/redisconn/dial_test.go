package redisconn

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
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

// What listens at a wrong port says what it is. It may also be something that answers once in
// Redis's place, so trying again goes on.
func TestPortOfAnother(t *testing.T) {
	LogTo(slog.New(slog.DiscardHandler))
	for answer, want := range map[string]string{
		"<!DOCTYPE HTML>\r\n<html>\r\n":    "speaks HTTP",
		"HTTP/1.1 400 Bad Request\r\n\r\n": "speaks HTTP",
		"\x15\x03\x01\x00\x02\x02\x46\r\n": "--redis-tls",
		"SSH-2.0-OpenSSH_9.6\r\n":          "does not speak Redis's protocol",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, answer)
				_ = c.Close()
			}
		}()
		c := New(Options{Addrs: []string{l.Addr().String()}, Timeout: 20 * time.Second})
		err = c.Wrap("asking", c.Ping(t.Context()).Err())
		if audit.NeedsPerson(err) || !strings.Contains(audit.Hint(err), want) {
			t.Errorf("%v, hint %q, want %q", err, audit.Hint(err), want)
		}
		_ = c.Close()
		_ = l.Close()
	}
}
