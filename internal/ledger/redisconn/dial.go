package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// pause is the idle time after which a connection is no longer trusted: the network
	// may have dropped it while the process was frozen.
	pause = time.Second
	// firstAnswer bounds the wait for the first answer after a pause.
	firstAnswer = 500 * time.Millisecond
)

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// newDialer returns a function that connects. If one of its connections does not answer
// after a pause, that one soon fails, and the others that have not answered since are not
// used again.
func newDialer(o *Options) dialFunc {
	plain := &net.Dialer{Timeout: o.Timeout}
	names := serverNames(o.Addrs)
	forgotten := &atomic.Int64{}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		dial := plain.DialContext
		if o.TLS != nil {
			config := o.TLS.Clone()
			if config.ServerName == "" {
				config.ServerName = names(addr)
			}
			dial = (&tls.Dialer{NetDialer: plain, Config: config}).DialContext
		}
		inner, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: inner, forgotten: forgotten}
		c.trusted.Store(forgotten.Load())
		c.used.Store(wall())
		return c, nil
	}
}

// serverNames returns a function that returns the name for which the certificate of an
// address must be. A cluster or a Sentinel may give the IP addresses of servers whose
// certificates are for the name that was configured.
func serverNames(given []string) func(addr string) string {
	var hosts []string
	named := ""
	for _, addr := range given {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			continue
		}
		hosts = append(hosts, host)
		if named == "" && net.ParseIP(host) == nil {
			named = host
		}
	}
	return func(addr string) string {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			host = addr
		}
		if named == "" || net.ParseIP(host) == nil || slices.Contains(hosts, host) {
			return host
		}
		return named
	}
}

// wall returns the Unix nanoseconds of the wall clock, which runs while a machine is
// suspended.
func wall() int64 { return time.Now().UnixNano() }

// conn is a connection that is not trusted after a pause. Only one goroutine may read from
// it at a time.
type conn struct {
	net.Conn
	// forgotten counts the connections of the client that did not answer after a pause. A
	// connection that has not answered since it last grew is not used again.
	forgotten *atomic.Int64
	trusted   atomic.Int64 // the value of forgotten when this connection last answered
	used      atomic.Int64 // when it was last written to or read from, by wall
	resumed   atomic.Bool  // it was written to after a pause, and has not answered yet
	cut       atomic.Bool  // it must not be used again

	answered bool   // the server has sent something other than an error
	said     string // first line of the last error, before answered is set
}

var errForgotten = errors.New("connection was idle when another one turned out to be forgotten")

func (c *conn) Write(b []byte) (int, error) {
	now := wall()
	if idle := now - c.used.Swap(now); idle > int64(pause) || idle < 0 { // or the clock was set back
		c.resumed.Store(true)
	}
	n, err := c.Conn.Write(b)
	if err != nil && Cut(err) {
		c.cut.Store(true)
		// A server that has too many clients sends an error and reads nothing.
		if c.Conn.SetReadDeadline(time.Now().Add(firstAnswer)) == nil {
			_, _ = c.Read(make([]byte, 512)) // keeps the error for explain
		}
		err = c.explain(err)
	}
	return n, err
}

// explain returns the error that the server sent before it closed the connection, or err if
// it sent none. An error that it sends later is about a command, and not about the
// connection.
func (c *conn) explain(err error) error {
	if c.answered || c.said == "" {
		return err
	}
	return serverError(c.said)
}

// serverError is an error that a server sent. It is a [redis.Error].
type serverError string

func (e serverError) Error() string { return string(e) }

// RedisError implements [redis.Error].
func (serverError) RedisError() {}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.trusted.Store(c.forgotten.Load())
		c.used.Store(wall())
		c.resumed.Store(false)
		if c.answered = c.answered || b[0] != '-'; !c.answered {
			c.said, _, _ = strings.Cut(string(b[1:n]), "\r\n")
		}
	}
	if err != nil && Cut(err) {
		c.cut.Store(true)
		err = c.explain(err)
	}
	if network, ok := errors.AsType[net.Error](err); ok && network.Timeout() && c.resumed.Load() {
		c.forgotten.Add(1)
	}
	return n, err
}

func (c *conn) SetReadDeadline(t time.Time) error {
	if soon := time.Now().Add(firstAnswer); c.resumed.Load() && (t.IsZero() || t.After(soon)) {
		t = soon
	}
	return c.Conn.SetReadDeadline(t)
}

// SyscallConn implements [syscall.Conn]. The client's pool calls it before it hands out the
// connection. If it returns an error, the pool closes this connection and takes another one.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if c.trusted.Load() < c.forgotten.Load() {
		return nil, errForgotten
	}
	if c.cut.Load() {
		return nil, net.ErrClosed
	}
	if plain, ok := c.Conn.(syscall.Conn); ok {
		return plain.SyscallConn()
	}
	return unread{}, nil
}

// unread is the [syscall.RawConn] of a connection over TLS. It has nothing to read: the pool
// would take records of TLS itself for an answer to no command.
type unread struct{}

func (unread) Control(func(fd uintptr)) error    { return nil }
func (unread) Read(func(fd uintptr) bool) error  { return nil }
func (unread) Write(func(fd uintptr) bool) error { return nil }
