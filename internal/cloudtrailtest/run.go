package cloudtrailtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"
)

// Running is a server that listens.
type Running struct {
	URL  string // http://127.0.0.1:port, without a slash at the end
	Addr string // 127.0.0.1:port
	// CertPEM is the certificate that a client has to trust; empty without TLS.
	CertPEM []byte

	server *http.Server
	cancel context.CancelFunc
	served chan error
}

// Start serves h on an address; "" is a free port on loopback. What h remembers
// outlives the listener: start it again on the same Addr to play an outage that
// refuses connections.
func Start(h http.Handler, addr string) (*Running, error) { return start(h, addr, false) }

// StartTLS is Start with TLS and a certificate of its own, for loopback names only.
func StartTLS(h http.Handler, addr string) (*Running, error) { return start(h, addr, true) }

func start(h http.Handler, addr string, secure bool) (*Running, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	r := &Running{served: make(chan error, 1)}
	scheme := "http"
	var config *tls.Config
	if secure {
		cert, certPEM, err := certificate()
		if err != nil {
			return nil, fmt.Errorf("making a certificate: %w", err)
		}
		scheme, r.CertPEM = "https", certPEM
		config = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	base, cancel := context.WithCancel(context.Background())
	l, err := (&net.ListenConfig{}).Listen(base, "tcp", addr)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("listening for CloudTrail calls: %w", err)
	}
	r.Addr = l.Addr().String()
	r.URL = scheme + "://" + r.Addr
	r.cancel = cancel
	r.server = &http.Server{
		Handler: h, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    log.New(io.Discard, "", 0), // clients that go away are part of the play
	}
	go func() {
		if secure {
			r.served <- r.server.ServeTLS(l, "", "")
		} else {
			r.served <- r.server.Serve(l)
		}
	}()
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

func certificate() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "emulated CloudTrail"},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
