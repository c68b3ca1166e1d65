package kongadmin

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/certtest"
)

// selfSigned makes a certificate as Kong makes its own: with a common name alone.
func selfSigned(t *testing.T, change func(*x509.Certificate)) (tls.Certificate, []byte) {
	t.Helper()
	own := certtest.New(t, func(c *x509.Certificate) {
		c.Subject, c.IsCA, c.KeyUsage = pkix.Name{CommonName: "localhost", Organization: []string{"Kong"}}, false, 0
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		if change != nil {
			change(c)
		}
	})
	return own.Certificate, own.PEM
}

func serveTLS(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { say(w, emptyPage) }))
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail on purpose
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

// Kong's default certificate is trusted if it is given as KONG_ROOT_CA, whatever
// name the Admin API is reached by, and no other certificate because of it.
func TestPinnedCertificate(t *testing.T) {
	own, ownPEM := selfSigned(t, nil)
	impostor, impostorPEM := selfSigned(t, nil)
	expired, expiredPEM := selfSigned(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	named, namedPEM := selfSigned(t, func(c *x509.Certificate) { c.DNSNames = []string{"kong.internal"} })
	both := append(append([]byte("# Kong\n"), impostorPEM...), ownPEM...)
	for name, c := range map[string]struct {
		server     tls.Certificate
		rootCA     []byte
		serverName string
		hint       string // part of it; empty where it works
	}{
		"pinned":               {own, ownPEM, "", ""},
		"pinned, another name": {own, ownPEM, "kong.internal", ""},
		"one of several":       {own, both, "", ""},
		"not given":            {own, nil, "", "common name"},
		"another is given":     {impostor, ownPEM, "", "common name"},
		"pinned, expired":      {expired, expiredPEM, "", "renew the certificate of CN=localhost,O=Kong"},
		"named, and pinned":    {named, namedPEM, "", ""},
		"named, not trusted":   {named, ownPEM, "kong.internal", "or to that certificate itself"},
		"named otherwise":      {named, ownPEM, "", "--kong-tls-server-name"},
	} {
		t.Run(name, func(t *testing.T) {
			u := serveTLS(t, c.server)
			client := newClient(t, Options{URL: u, RootCA: c.rootCA, TLS: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.serverName}})
			if c.hint == "" {
				if _, err := client.Page(t.Context(), all); err != nil {
					t.Error(err)
				}
				return
			}
			if err := refused(t, client, all); !strings.Contains(hint(err), c.hint) {
				t.Errorf("%v, hint %q", err, hint(err))
			}
		})
	}
	for _, text := range []string{"", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if _, err := New(Options{URL: "https://kong", RootCA: []byte(text)}); !strings.Contains(hint(err), "KONG_ROOT_CA") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// An authority that is given as PEM is trusted for the names of its certificates only.
func TestRootCA(t *testing.T) {
	authority := certtest.New(t, nil)
	u, ca := serveTLS(t, authority.Issue(t, nil).Certificate), authority.PEM
	if _, err := newClient(t, Options{URL: u, RootCA: ca}).Page(t.Context(), all); err != nil {
		t.Error(err)
	}
	err := refused(t, newClient(t, Options{URL: u, RootCA: ca, TLS: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: "kong.internal"}}), all)
	if !strings.Contains(hint(err), "--kong-tls-server-name") {
		t.Errorf("%v, hint %q", err, hint(err))
	}
}
