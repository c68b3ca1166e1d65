// Package plugintest runs plugins built with go-pdk where there is no Kong: it
// starts the built plugin as a process and speaks Kong's protocol to it.
//
// The protocol is that of Kong 3.9 and go-pdk v0.11.2: frames of a little-endian
// uint32 length and a protobuf message on a Unix socket. During an event the plugin
// calls methods of Kong's, with a frame for the name and one for the arguments; an
// empty frame ends the event, and the return value of the event follows.
package plugintest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"github.com/go-json-experiment/json"
)

// Host is a running plugin and the calls that it made. It is safe for concurrent use.
type Host struct {
	name    string
	cmd     *exec.Cmd
	socket  string
	stderr  tail
	exited  chan struct{} // closed when the process has ended
	exitErr error         // set before exited is closed

	sequence atomic.Int64 // of calls
	idle     chan *conn   // connections that wait for the next call
	waits    atomic.Int64

	mu    sync.Mutex
	calls map[string]int
	lines []Line
}

// Line is a line that the plugin wrote to Kong's log.
type Line struct {
	Level string // "err", "warn", …
	Text  string
}

// maxLines bounds the lines that a Host keeps; the newest are dropped.
const maxLines = 10_000

// Start starts the plugin at binary, with its socket in dir, and returns when the
// plugin accepts calls. It returns an error if ctx or the process ends before. The
// path of dir must be short: a Unix socket's path may have about 100 bytes. Close
// ends the process.
func Start(ctx context.Context, binary, dir string) (*Host, error) {
	name := filepath.Base(binary)
	h := &Host{
		name: name, socket: filepath.Join(dir, name+".socket"), exited: make(chan struct{}),
		idle: make(chan *conn, 64), calls: map[string]int{},
	}
	h.cmd = exec.Command(binary, "-kong-prefix", dir) //nolint:noctx // Close ends it
	h.cmd.Stderr = &h.stderr
	h.cmd.WaitDelay = time.Minute // nothing else holds its standard error
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the plugin: %w", err)
	}
	go func() {
		h.exitErr = h.cmd.Wait()
		close(h.exited)
	}()
	every := time.NewTicker(5 * time.Millisecond)
	defer every.Stop()
	for {
		c, err := h.dial(ctx)
		if err == nil {
			h.keep(c)
			return h, nil
		}
		select {
		case <-every.C:
		case <-h.exited:
			return nil, fmt.Errorf("the plugin ended: %w: %s", errors.Join(h.exitErr, errors.New("no longer running")), h.Stderr())
		case <-ctx.Done():
			_ = h.cmd.Process.Kill()
			<-h.exited
			return nil, fmt.Errorf("waiting for the plugin's socket: %w", ctx.Err())
		}
	}
}

// Instance starts an instance with config, which is encoded as JSON, and returns its
// id. Kong starts one for each worker and configuration.
func (h *Host) Instance(ctx context.Context, config any) (int32, error) {
	data, err := json.Marshal(config)
	if err != nil {
		return 0, fmt.Errorf("encoding the configuration: %w", err)
	}
	ret, err := h.call(ctx, "starting an instance", &kong_plugin_protocol.RpcCall{Call: &kong_plugin_protocol.RpcCall_CmdStartInstance{
		CmdStartInstance: &kong_plugin_protocol.CmdStartInstance{Name: h.name, Config: data},
	}}, nil)
	return ret.GetInstanceStatus().GetInstanceId(), err
}

// CloseInstance ends an instance.
func (h *Host) CloseInstance(ctx context.Context, instance int32) error {
	_, err := h.call(ctx, "closing an instance", &kong_plugin_protocol.RpcCall{Call: &kong_plugin_protocol.RpcCall_CmdCloseInstance{
		CmdCloseInstance: &kong_plugin_protocol.CmdCloseInstance{InstanceId: instance},
	}}, nil)
	return err
}

// Log runs the log phase of a request and returns when the plugin has handled it.
// Concurrent calls use separate connections, as in Kong.
func (h *Host) Log(ctx context.Context, instance int32, e Event) error {
	_, err := h.call(ctx, "running the log phase", &kong_plugin_protocol.RpcCall{Call: &kong_plugin_protocol.RpcCall_CmdHandleEvent{
		CmdHandleEvent: &kong_plugin_protocol.CmdHandleEvent{InstanceId: instance, EventName: "log"},
	}}, &e)
	return err
}

// Calls returns how often the plugin has called each method of the PDK.
func (h *Host) Calls() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.calls)
}

// Waits returns how often the host has waited for something that the plugin had not
// sent yet. Each time costs Kong a turn of its event loop.
func (h *Host) Waits() int { return int(h.waits.Load()) }

// Lines returns what the plugin has written to Kong's log.
func (h *Host) Lines() []Line {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines)
}

// Stderr returns the end of what the process has written to its standard error.
func (h *Host) Stderr() string { return h.stderr.String() }

// PID is the process id of the plugin.
func (h *Host) PID() int { return h.cmd.Process.Pid }

// Terminate sends SIGTERM, as Kong does first, and returns how long the process took
// to end. Kong would send SIGKILL about 50 ms later; Terminate waits until ctx ends.
func (h *Host) Terminate(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("stopping the plugin: %w", err)
	}
	select {
	case <-h.exited:
		return time.Since(start), h.exitErr
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for the plugin to end: %w", ctx.Err())
	}
}

// Close stops the plugin as Kong does: with SIGTERM, and with SIGKILL if it has not
// ended 50 ms later. It returns when the process has ended. It may be called twice.
func (h *Host) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Terminate(ctx); errors.Is(err, context.DeadlineExceeded) {
		_ = h.cmd.Process.Kill()
	}
	<-h.exited
	for {
		select {
		case c := <-h.idle:
			_ = c.Close()
		default:
			return nil
		}
	}
}

func (h *Host) dial(ctx context.Context) (*conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", h.socket)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, r: bufio.NewReader(c), waits: &h.waits}, nil
}

// keep keeps a connection for the next call.
func (h *Host) keep(c *conn) {
	select {
	case h.idle <- c:
	default:
		_ = c.Close()
	}
}

// tail keeps the last bytes that are written to it.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const tailSize = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p)
	if extra := t.buf.Len() - tailSize; extra > 0 {
		t.buf.Next(extra)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
