package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/certtest"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// front stands before a server, and misbehaves as networks, proxies and
// certificates do.
type front struct {
	addr, backend string
	tb            testing.TB

	accepted atomic.Int64 // connections

	mu       sync.Mutex
	mode     frontMode
	listener net.Listener // nil while connections are refused
	conns    map[net.Conn]struct{}
}

// frontMode is how a front behaves. The zero value passes everything on, without TLS.
type frontMode struct {
	cert    *tls.Certificate
	answer  func() string // what each request is answered, instead of being passed on
	silent  bool          // takes connections and says nothing
	refused bool          // takes no connections
}

func newFront(tb testing.TB, backend string, mode frontMode) *front {
	tb.Helper()
	f := &front{backend: backend, addr: "127.0.0.1:" + redistest.FreePort(tb), tb: tb, conns: map[net.Conn]struct{}{}}
	f.set(mode)
	tb.Cleanup(func() { f.set(frontMode{refused: true}) })
	return f
}

// set changes how the front behaves, and cuts every connection.
func (f *front) set(mode frontMode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mode = mode
	for c := range f.conns {
		_ = c.Close()
	}
	switch {
	case mode.refused && f.listener != nil:
		_ = f.listener.Close()
		f.listener = nil
	case !mode.refused && f.listener == nil:
		l, err := net.Listen("tcp", f.addr)
		if err != nil {
			f.tb.Error(err)
			return
		}
		f.listener = l
		go f.accept(l)
	}
}

func (f *front) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		f.accepted.Add(1)
		f.mu.Lock()
		mode := f.mode
		f.conns[c] = struct{}{}
		f.mu.Unlock()
		go func() {
			f.serve(c, mode)
			_ = c.Close()
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.conns, c)
		}()
	}
}

func (f *front) serve(raw net.Conn, mode frontMode) {
	c := raw
	if mode.cert != nil {
		c = tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{*mode.cert}, MinVersion: tls.VersionTLS12})
	}
	switch {
	case mode.silent:
		_, _ = io.Copy(io.Discard, raw)
	case mode.answer != nil:
		buffer := make([]byte, 64<<10)
		if n, _ := c.Read(buffer); n > 0 {
			_, _ = io.WriteString(c, mode.answer())
		}
	default:
		behind, err := net.Dial("tcp", f.backend)
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(behind, c)
			_ = behind.Close()
		}()
		_, _ = io.Copy(c, behind)
	}
}

// issuer makes certificates.
type issuer struct {
	certtest.Certificate

	tb   testing.TB
	path string // of its own certificate
}

func newIssuer(tb testing.TB) *issuer {
	tb.Helper()
	i := &issuer{Certificate: certtest.New(tb, nil), tb: tb, path: filepath.Join(tb.TempDir(), "ca.pem")}
	if err := os.WriteFile(i.path, i.PEM, 0o600); err != nil {
		tb.Fatal(err)
	}
	return i
}

// server returns a certificate for a server of this machine, changed as change says.
func (i *issuer) server(change func(*x509.Certificate)) *tls.Certificate {
	i.tb.Helper()
	c := i.Issue(i.tb, change)
	return &c.Certificate
}

// wrongTLS returns the ways in which a server's certificate, or the lack of one, is wrong.
func (i *issuer) wrongTLS() map[string]frontMode {
	stranger := newIssuer(i.tb)
	return map[string]frontMode{
		"expired": {cert: i.server(func(t *x509.Certificate) {
			t.NotBefore, t.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
		})},
		"wrong name": {cert: i.server(func(t *x509.Certificate) {
			t.IPAddresses, t.DNSNames = nil, []string{"elsewhere.internal"}
		})},
		"unknown CA": {cert: stranger.server(nil)},
		"plain":      {},
	}
}
