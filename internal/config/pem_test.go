package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestParsePublicKey(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, b []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	pkixOf := func(public any) string {
		b, err := x509.MarshalPKIXPublicKey(public)
		return encode("PUBLIC KEY", b, err)
	}
	certificate := func(public, private any) string {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kong"}, NotAfter: time.Now().Add(time.Hour)}
		b, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
		return encode("CERTIFICATE", b, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	good := pkixOf(&key.PublicKey)
	for name, c := range map[string]struct {
		text  string
		taken bool
	}{
		"PKIX":                 {good, true},
		"PKCS #1":              {encode("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&key.PublicKey), nil), true},
		"certificate":          {certificate(&key.PublicKey, key), true},
		"white space around":   {"\r\n  " + strings.ReplaceAll(good, "\n", "\r\n") + "\n\n", true},
		"words before":         {"our key:\n" + good, true},
		"curve":                {pkixOf(&curve.PublicKey), false},
		"curve's certificate":  {certificate(&curve.PublicKey, curve), false},
		"private key":          {encode("PRIVATE KEY", pkcs8, nil), false},
		"private key, PKCS #1": {encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key), nil), false},
		"too short to check":   {"-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALxcu2vkxqGQ6uQ8FBzWHmuYnhCbjUjT\n9nD4xDJ3rV0cBmUlDIX9n3tzYAbgX4O0jEyvJO6y3L9EYbFdYkcxkMsCAwEAAQ==\n-----END PUBLIC KEY-----\n", false},
		"garbage in PEM":       {encode("PUBLIC KEY", []byte("garbage"), nil), false},
		"empty":                {"", false},
		"not PEM":              {"ssh-rsa AAAA", false},
		"cut":                  {good[:len(good)/2], false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := parsePublicKey([]byte(c.text))
			if ok != c.taken || ok && !got.Equal(&key.PublicKey) {
				t.Errorf("%v, %v", got, ok)
			}
		})
	}
}
