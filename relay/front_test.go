package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// front stands before a server, and misbehaves as networks, proxies and
// certificates do.
type front struct {
	addr, backend string
	tb            testing.TB

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
	tb   testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	path string // of its own certificate
}

func newIssuer(tb testing.TB) *issuer {
	tb.Helper()
	i := &issuer{tb: tb, path: filepath.Join(tb.TempDir(), "ca.pem")}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	var der []byte
	i.key, der = i.sign(t, nil)
	var err error
	if i.cert, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	var text bytes.Buffer
	if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(i.path, text.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	return i
}

// sign makes a key and its certificate, which signs itself where there is no parent.
func (i *issuer) sign(t *x509.Certificate, parent *x509.Certificate) (*ecdsa.PrivateKey, []byte) {
	i.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.tb.Fatal(err)
	}
	by := i.key
	if parent == nil {
		parent, by = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, by)
	if err != nil {
		i.tb.Fatal(err)
	}
	return key, der
}

// server returns a certificate for a server of this machine, changed as change says.
func (i *issuer) server(change func(*x509.Certificate)) *tls.Certificate {
	i.tb.Helper()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(t)
	}
	key, der := i.sign(t, i.cert)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
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
