package kongadmin

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// trust returns a copy of a configuration that trusts more certificates: those of
// authorities, and a server's own for any name. Kong's default certificate needs the
// latter: it is self-signed and names its host only as the common name, which
// crypto/tls refuses even of an authority.
func trust(config *tls.Config, rootCA []byte, host string) (*tls.Config, error) {
	if config = config.Clone(); config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if rootCA == nil {
		return config, nil
	}
	var given []*x509.Certificate
	for rest := rootCA; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			given = append(given, cert)
		}
	}
	if len(given) == 0 {
		return nil, audit.SettingsErrorf("set KONG_ROOT_CA to PEM text, or to the path of a PEM file", "KONG_ROOT_CA holds no certificate")
	}
	roots := config.RootCAs
	if roots != nil {
		roots = roots.Clone()
	} else {
		var err error
		if roots, err = x509.SystemCertPool(); err != nil {
			roots = x509.NewCertPool()
		}
	}
	for _, cert := range given {
		roots.AddCert(cert)
	}
	if config.ServerName != "" {
		host = config.ServerName
	}
	// verify does what crypto/tls would do, unless it finds one of the given certificates.
	config.InsecureSkipVerify = true
	caller := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if caller != nil {
			if err := caller(state); err != nil {
				return err
			}
		}
		return verify(state.PeerCertificates, given, roots, host)
	}
	return config, nil
}

func verify(chain, pinned []*x509.Certificate, roots *x509.CertPool, host string) error {
	fail := func(err error) error {
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	leaf := chain[0] // crypto/tls has seen to it that there is one
	if slices.ContainsFunc(pinned, leaf.Equal) {
		if now := time.Now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
			return fail(x509.CertificateInvalidError{Cert: leaf, Reason: x509.Expired, Detail: "the certificate itself was given"})
		}
		return nil
	}
	options := x509.VerifyOptions{Roots: roots, DNSName: host, Intermediates: x509.NewCertPool()}
	for _, cert := range chain[1:] {
		options.Intermediates.AddCert(cert)
	}
	if _, err := leaf.Verify(options); err != nil {
		return fail(err)
	}
	return nil
}
