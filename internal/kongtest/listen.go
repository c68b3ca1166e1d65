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
	ca      *authority
}

// Start listens on a free port of the loopback interface and returns the URL.
func (s *Server) Start() (string, error) { return s.Listen("127.0.0.1:0") }

// StartTLS is Start with TLS: its certificate is for 127.0.0.1, ::1 and
// localhost, of the authority that CA returns.
func (s *Server) StartTLS() (string, error) { return s.ListenTLS("127.0.0.1:0") }

// Listen listens on an address, host:port.
func (s *Server) Listen(address string) (string, error) { return s.listen(address, nil) }

// ListenTLS is Listen with TLS.
func (s *Server) ListenTLS(address string) (string, error) {
	ca, err := s.authority()
	if err != nil {
		return "", err
	}
	o := s.options.Load()
	issue := func() (tls.Certificate, error) { return ca.issue("kong-admin", x509.ExtKeyUsageServerAuth) }
	if o.DefaultCertificate {
		issue = selfSigned
	}
	cert, err := issue()
	if err != nil {
		return "", err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if o.ClientCert {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(ca.cert)
	}
	return s.listen(address, c)
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
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}), nil
}

// ClientCertificate issues a certificate for a client, as PEM.
func (s *Server) ClientCertificate() (cert, key []byte, err error) {
	ca, err := s.authority()
	if err != nil {
		return nil, nil, err
	}
	c, err := ca.issue("relay", x509.ExtKeyUsageClientAuth)
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

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (s *Server) authority() (*authority, error) {
	s.listeners.mu.Lock()
	defer s.listeners.mu.Unlock()
	if s.listeners.ca != nil {
		return s.listeners.ca, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making key: %w", err)
	}
	t := template("kongtest authority")
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign
	b, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("making authority: %w", err)
	}
	cert, err := x509.ParseCertificate(b)
	if err != nil {
		return nil, fmt.Errorf("making authority: %w", err)
	}
	s.listeners.ca = &authority{cert, key}
	return s.listeners.ca, nil
}

func (a *authority) issue(name string, usage x509.ExtKeyUsage) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making key: %w", err)
	}
	t := template(name)
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{usage}
	t.DNSNames = []string{"localhost"}
	t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	b, err := x509.CreateCertificate(rand.Reader, t, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issuing certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{b}, PrivateKey: key}, nil
}

// selfSigned makes a certificate as Kong makes its own: for the common name
// localhost, and no other name.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making key: %w", err)
	}
	t := template("localhost")
	t.BasicConstraintsValid = true
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	b, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{b}, PrivateKey: key}, nil
}

func template(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
	}
}
