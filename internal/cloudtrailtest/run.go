package cloudtrailtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// Running is a server that listens.
type Running struct {
	URL  string // http://127.0.0.1:port, without a slash at the end
	Addr string // 127.0.0.1:port

	server *http.Server
	cancel context.CancelFunc
	served chan error
}

// Start serves h on an address; "" is a free port on loopback. What h remembers
// outlives the listener: start it again on the same Addr to play an outage that
// refuses connections.
func Start(h http.Handler, addr string) (*Running, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	base, cancel := context.WithCancel(context.Background())
	l, err := (&net.ListenConfig{}).Listen(base, "tcp", addr)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("listening for CloudTrail calls: %w", err)
	}
	r := &Running{URL: "http://" + l.Addr().String(), Addr: l.Addr().String(), cancel: cancel, served: make(chan error, 1)}
	r.server = &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    log.New(io.Discard, "", 0), // clients that go away are part of the play
	}
	go func() { r.served <- r.server.Serve(l) }()
	return r, nil
}

// Close stops listening, ends what goes on, and waits for it, two seconds at the most.
func (r *Running) Close() error {
	r.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := r.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = r.server.Close()
	}
	if served := <-r.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
