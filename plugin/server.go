package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Kong/go-pdk"
	"github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/proto"
)

// server answers Kong's calls in the way of StartServer in go-pdk v0.11.2: the
// same socket, the same commands, and a connection that closes on an error. What
// the plugin asks of Kong goes through go-pdk. ARCHITECTURE.md says what
// StartServer cannot do: number the instances of each worker separately, and
// send the end of an event together with the question that the event asks.
type server struct {
	senders *senders
	running sync.WaitGroup // connections

	mu        sync.Mutex
	instances map[int32]*instance
	lastID    int32 // of the instances
	conns     map[net.Conn]struct{}
	closed    bool
}

type instance struct {
	config   *Config
	started  time.Time
	used     time.Time   // guarded by server.mu
	asksOnce atomic.Bool // the last event asked Kong one question
}

// expireAfter is the age at which unused instances are removed when any instance
// is closed, as in go-pdk: Kong does not close those of a worker that died.
const expireAfter = time.Minute

func newServer(s *senders) *server {
	return &server{senders: s, instances: map[int32]*instance{}, lastID: rand.Int32N(1 << 30), conns: map[net.Conn]struct{}{}}
}

// listen listens on the socket at path, even if another process still does: Kong
// may be replacing that one.
func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing the old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening for Kong: %w", err)
	}
	l.SetUnlinkOnClose(false) // by then it may be the next process's
	return l, nil
}

// serve accepts connections until the listener is closed or fails.
func (s *server) serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting a connection from Kong: %w", err)
		}
		s.mu.Lock()
		if s.closed {
			_ = c.Close()
		} else {
			s.conns[c] = struct{}{}
			s.running.Go(func() { s.converse(c) })
		}
		s.mu.Unlock()
	}
}

// close closes all connections and waits for the events that are running.
func (s *server) close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
}

func (s *server) converse(raw net.Conn) {
	c := &conn{Conn: raw, r: bufio.NewReader(raw), w: bufio.NewWriter(raw)}
	kong := pdk.Init(c)
	var err error
	for err == nil {
		var call []byte
		if call, err = c.readFrame(); err == nil {
			err = s.answer(c, kong, call)
		}
	}
	_ = raw.Close()
	s.mu.Lock()
	delete(s.conns, raw)
	stopping := s.closed
	s.mu.Unlock()
	if !stopping && !errors.Is(err, io.EOF) {
		s.senders.logger.Info("a connection from Kong ended", "err", err)
	}
}

// answer handles one call. Kong makes these three: it gets the plugin's name and
// schema from -dump.
func (s *server) answer(c *conn, kong *pdk.PDK, data []byte) error {
	var call kong_plugin_protocol.RpcCall
	if err := proto.Unmarshal(data, &call); err != nil {
		return fmt.Errorf("decoding a call: %w", err)
	}
	ret := &kong_plugin_protocol.RpcReturn{Sequence: call.GetSequence()}
	switch command := call.GetCall().(type) {
	case *kong_plugin_protocol.RpcCall_CmdHandleEvent:
		e := command.CmdHandleEvent
		i, err := s.use(e.GetInstanceId())
		if err != nil {
			return err
		}
		if e.GetEventName() != "log" {
			return fmt.Errorf("there is no handler for %q", e.GetEventName())
		}
		return c.handle(i, kong, ret)
	case *kong_plugin_protocol.RpcCall_CmdStartInstance:
		ret.Return = s.start(command.CmdStartInstance.GetConfig())
	case *kong_plugin_protocol.RpcCall_CmdCloseInstance:
		id := command.CmdCloseInstance.GetInstanceId()
		i, err := s.use(id)
		if err != nil {
			return err
		}
		ret.Return = i.status(id)
		s.remove(id)
	default:
		return fmt.Errorf("there is no answer to a %T", command)
	}
	data, err := proto.Marshal(ret)
	if err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	_, err = c.w.Write(appendFrame(nil, data))
	return err
}

// start makes an instance and numbers it. Kong uses the number in the answer (see
// call_start_instance in kong/runloop/plugin_servers/rpc/pb_rpc.lua). go-pdk would
// use Kong's number of the configuration, __seq__, which every worker of a Kong
// before 3.6 counts for itself: two workers' instances could share one.
//
// The first number is random. A worker may still have numbers of the process before
// this one. It must find no instance under them, and start one.
func (s *server) start(config []byte) *kong_plugin_protocol.RpcReturn_InstanceStatus {
	now := time.Now()
	i := &instance{config: parseConfig(s.senders, config), started: now, used: now}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	s.instances[s.lastID] = i
	return i.status(s.lastID)
}

func (i *instance) status(id int32) *kong_plugin_protocol.RpcReturn_InstanceStatus {
	return &kong_plugin_protocol.RpcReturn_InstanceStatus{InstanceStatus: &kong_plugin_protocol.InstanceStatus{
		Name: name, InstanceId: id, StartedAt: i.started.Unix(),
	}}
}

func (s *server) use(id int32) (*instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.instances[id]
	if i == nil {
		return nil, fmt.Errorf("no plugin instance %d", id)
	}
	i.used = time.Now()
	return i, nil
}

func (s *server) remove(id int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.instances, id)
	for id, i := range s.instances {
		if time.Since(i.used) > expireAfter {
			delete(s.instances, id)
		}
	}
}
