package config

import (
	"bytes"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
)

// pemText returns PEM text that is given as such or by its path. In an
// environment file a new line is often written as \n.
func (l *loader) pemText(text string) ([]byte, error) {
	if strings.Contains(text, "-----BEGIN") {
		return []byte(strings.ReplaceAll(text, `\n`, "\n")), nil
	}
	content, err := l.readFile(text)
	if err != nil {
		return nil, expected("PEM text or the path of a PEM file", "It is read as a path: "+fileReason(err))
	}
	return content, nil
}

func (l *loader) certificates(field *[]byte) setter {
	return func(text string) error {
		if text == "disabled" { // in the first integration's documentation this means none
			return nil
		}
		content, err := l.pemText(text)
		if err != nil {
			return err
		}
		if !x509.NewCertPool().AppendCertsFromPEM(content) {
			return expected("at least one certificate in PEM", "It begins with -----BEGIN CERTIFICATE-----.")
		}
		*field = content
		return nil
	}
}

func (l *loader) publicKey(text string) error {
	content, err := l.pemText(text)
	if err != nil {
		return err
	}
	key, ok := parsePublicKey(content)
	if !ok {
		return expected("an RSA public key in PEM", "Make it from Kong's key: openssl rsa -in <key> -pubout.")
	}
	l.settings.AuditPublicKey = key
	return nil
}

func (l *loader) fileContent(field *[]byte) setter {
	return func(text string) error {
		content, err := l.readFile(text)
		if err != nil {
			return expected("the path of a PEM file", "It cannot be read: "+fileReason(err))
		}
		*field = content
		return nil
	}
}

// fileReason is the cause of an error as a sentence, without the path of a file.
func fileReason(err error) string {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err.Error() + "."
}

// minKey is the shortest key, in bits, that crypto/rsa verifies with.
const minKey = 1024

// parsePublicKey reads an RSA public key in PEM: PKIX, PKCS #1, or a certificate.
func parsePublicKey(text []byte) (key *rsa.PublicKey, ok bool) {
	block, _ := pem.Decode(bytes.TrimSpace(text))
	if block == nil {
		return nil, false
	}
	if key, err := x509.ParsePKCS1PublicKey(block.Bytes); err == nil {
		return key, key.N.BitLen() >= minKey
	}
	public, _ := x509.ParsePKIXPublicKey(block.Bytes)
	if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
		public = cert.PublicKey
	}
	key, ok = public.(*rsa.PublicKey)
	return key, ok && key.N.BitLen() >= minKey
}

// TLSToKong returns how the relay speaks TLS to Kong, but for KongRootCA.
func (s *Settings) TLSToKong() *tls.Config {
	c := clientTLS(nil)
	c.ServerName = s.KongTLSServerName
	if s.KongClientCert != nil {
		c.Certificates = []tls.Certificate{*s.KongClientCert}
	}
	return c
}

// TLSToRedis returns how the relay speaks TLS to Redis, or nil if it does not.
func (s *Settings) TLSToRedis() *tls.Config {
	if !s.RedisTLS {
		return nil
	}
	c := clientTLS(s.RedisCA)
	c.ServerName = s.RedisTLSServerName
	return c
}

// clientTLS trusts the certificates of a CA, if there are any, beside the system's.
func clientTLS(ca []byte) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		pool.AppendCertsFromPEM(ca) // the settings were refused if it holds none
		c.RootCAs = pool
	}
	return c
}
