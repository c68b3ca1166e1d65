// Package certtest makes certificates for tests.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// Certificate is a certificate with its key, and as PEM.
type Certificate struct {
	tls.Certificate

	PEM, KeyPEM []byte
}

// New returns a certificate that issued itself: of an authority, as long as change does not
// make it another one.
func New(tb testing.TB, change func(*x509.Certificate)) Certificate {
	tb.Helper()
	return issue(tb, nil, func(t *x509.Certificate) {
		t.Subject.CommonName, t.IsCA, t.KeyUsage = "test authority", true, x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign
		if change != nil {
			change(t)
		}
	})
}

// Issue returns a certificate of an authority: for servers at 127.0.0.1, ::1 and localhost and
// for clients, as long as change does not make it another one.
func (c Certificate) Issue(tb testing.TB, change func(*x509.Certificate)) Certificate {
	tb.Helper()
	return issue(tb, &c, func(t *x509.Certificate) {
		t.Subject.CommonName, t.ExtKeyUsage = "server", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		t.DNSNames, t.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
		if change != nil {
			change(t)
		}
	})
}

// Pool returns a pool that holds the certificate.
func (c Certificate) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.Leaf)
	return pool
}

func issue(tb testing.TB, ca *Certificate, change func(*x509.Certificate)) (c Certificate) {
	tb.Helper()
	must := func(err error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	change(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	parent, signer := t, any(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	raw, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
	must(err)
	leaf, err := x509.ParseCertificate(raw)
	must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	return Certificate{
		Certificate: tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: leaf},
		PEM:         pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}),
		KeyPEM:      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}
