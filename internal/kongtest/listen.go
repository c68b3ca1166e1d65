package kongtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"time"
)

// Start listens on a free port of the loopback interface and returns the URL.
func (s *Server) Start() (string, error) { return s.listen("127.0.0.1:0", nil) }

// StartTLS is like Start, with TLS. It uses config's certificates as they are.
func (s *Server) StartTLS(config *tls.Config) (string, error) {
	return s.listen("127.0.0.1:0", config)
}

func (s *Server) listen(address string, config *tls.Config) (string, error) {
	var c net.ListenConfig
	l, err := c.Listen(context.Background(), "tcp", address) // an address of this machine is bound at once
	if err != nil {
		return "", fmt.Errorf("listening: %w", err)
	}
	h := &httptest.Server{Listener: l, TLS: config, EnableHTTP2: true, Config: &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.serving.RLock()
			defer s.serving.RUnlock()
			s.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // the client reports a handshake that fails
	}}
	if config == nil {
		h.Start()
	} else {
		h.StartTLS()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listening = append(s.listening, h)
	return h.URL, nil
}

// Close cuts every connection, stops listening, and writes the rows that are late. It keeps
// all rows, and the server may listen again, as a Kong that was restarted does. Close waits
// for requests that are being served, so OnPage must not call it.
func (s *Server) Close() error {
	s.mu.Lock()
	listening := s.listening
	s.listening = nil
	s.mu.Unlock()
	var err error
	for _, h := range listening {
		err = errors.Join(err, h.Config.Close()) // which does not wait for clients
		h.Close()
	}
	s.serving.Lock()   // waits until the last request has been served
	s.serving.Unlock() //nolint:staticcheck // nothing to do but wait
	if s.proxy != nil {
		s.proxy.Transport.(*http.Transport).CloseIdleConnections()
	}
	s.ReleaseRows()
	s.writes.Wait()
	return err
}
