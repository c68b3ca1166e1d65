package kongtest

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
	"net/http/httptest"
	"sync"
	"time"
)

type listeners struct {
	mu      sync.Mutex
	servers []*httptest.Server
	serving sync.RWMutex // held for reading by each request
	ca      *tls.Certificate
}

// Start listens on a free port of the loopback interface and returns the URL.
func (s *Server) Start() (string, error) { return s.Listen("127.0.0.1:0") }

// Listen listens on an address, host:port.
func (s *Server) Listen(address string) (string, error) { return s.listen(address, nil) }

// StartTLS is Start with TLS: its certificate is for 127.0.0.1, ::1 and localhost, of the
// authority that CA returns.
func (s *Server) StartTLS() (string, error) {
	ca, err := s.authority()
	if err != nil {
		return "", err
	}
	o := s.options.Load()
	var cert tls.Certificate
	if o.DefaultCertificate { // Kong makes one for the common name localhost, and no other name
		cert, err = issue(certificate("localhost", x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth), nil)
	} else {
		t := certificate("kong-admin", x509.ExtKeyUsageServerAuth)
		t.DNSNames, t.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
		cert, err = issue(t, ca)
	}
	if err != nil {
		return "", err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if o.ClientCert {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(ca.Leaf)
	}
	return s.listen("127.0.0.1:0", c)
}

func (s *Server) listen(address string, config *tls.Config) (string, error) {
	var c net.ListenConfig
	l, err := c.Listen(context.Background(), "tcp", address) // an address of this machine is bound at once
	if err != nil {
		return "", fmt.Errorf("listening: %w", err)
	}
	h := &httptest.Server{Listener: l, TLS: config, EnableHTTP2: true, Config: &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.listeners.serving.RLock()
			defer s.listeners.serving.RUnlock()
			s.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // handshakes that fail are the client's to tell
	}}
	if config == nil {
		h.Start()
	} else {
		h.StartTLS()
	}
	s.listeners.mu.Lock()
	defer s.listeners.mu.Unlock()
	s.listeners.servers = append(s.listeners.servers, h)
	return h.URL, nil
}

// Close cuts every connection, stops listening, and writes the rows that are
// late. Rows stay, and the server may listen again: a Kong that was restarted.
// It waits for requests that are being served: OnPage must not call it.
func (s *Server) Close() error {
	s.listeners.mu.Lock()
	servers := s.listeners.servers
	s.listeners.servers = nil
	s.listeners.mu.Unlock()
	var err error
	for _, h := range servers {
		err = errors.Join(err, h.Config.Close()) // which does not wait for clients
		h.Close()
	}
	s.listeners.serving.Lock()   // once the last request has been served
	s.listeners.serving.Unlock() //nolint:staticcheck // nothing to do but wait
	if s.proxy != nil {
		s.proxy.Transport.(*http.Transport).CloseIdleConnections()
	}
	s.ReleaseRows()
	s.writes.Wait()
	return err
}

// CA returns the certificate of the authority that has issued the server's, as
// PEM. It is made when it is first needed.
func (s *Server) CA() ([]byte, error) {
	ca, err := s.authority()
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Leaf.Raw}), nil
}

// ClientCertificate issues a certificate for a client, as PEM.
func (s *Server) ClientCertificate() (cert, key []byte, err error) {
	ca, err := s.authority()
	if err != nil {
		return nil, nil, err
	}
	c, err := issue(certificate("relay", x509.ExtKeyUsageClientAuth), ca)
	if err != nil {
		return nil, nil, err
	}
	b, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}), nil
}

// authority returns the server's own authority, which is made when it is first needed.
func (s *Server) authority() (*tls.Certificate, error) {
	s.listeners.mu.Lock()
	defer s.listeners.mu.Unlock()
	if s.listeners.ca == nil {
		t := certificate("kongtest authority")
		t.IsCA, t.KeyUsage = true, x509.KeyUsageCertSign
		ca, err := issue(t, nil)
		if err != nil {
			return nil, err
		}
		s.listeners.ca = &ca
	}
	return s.listeners.ca, nil
}

// certificate returns what is to be certified.
func certificate(name string, usage ...x509.ExtKeyUsage) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage,
	}
}

// issue makes a certificate with a new key, signed by an authority; nil: by itself.
func issue(t *x509.Certificate, ca *tls.Certificate) (c tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, fmt.Errorf("making key: %w", err)
	}
	parent, signer := t, any(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	b, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
	if err != nil {
		return c, fmt.Errorf("issuing certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(b)
	return tls.Certificate{Certificate: [][]byte{b}, PrivateKey: key, Leaf: leaf}, err
}
