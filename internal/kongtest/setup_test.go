package kongtest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/certtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

func TestTLS(t *testing.T) {
	s, ca := serverWith(Options{}, rows(3)...), certtest.New(t, nil)
	server, pair, pool := ca.Issue(t, nil).Certificate, ca.Issue(t, nil).Certificate, ca.Pool()
	u, err := s.StartTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		name   string
		config *tls.Config
		http2  bool
		works  bool
	}{
		{"both", &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, false, true},
		{"both, HTTP/2", &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, true, true},
		{"unknown authority", &tls.Config{Certificates: []tls.Certificate{pair}}, false, false},
		{"no client certificate", &tls.Config{RootCAs: pool}, false, false},
	} {
		tr := &http.Transport{TLSClientConfig: c.config.Clone(), ForceAttemptHTTP2: c.http2}
		res, b, err := fetch(t, &http.Client{Transport: tr}, u+auditPath)
		if (err == nil) != c.works {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.works && (err == nil) && (!jsontext.Value(b).IsValid(anyBytes) || (res.ProtoMajor == 2) != c.http2) {
			t.Errorf("%s: %s, %d bytes", c.name, res.Proto, len(b))
		}
		if c.works {
			for _, f := range []Fault{{Reset: true}, {Truncate: true}} {
				s.Inject(f, f) // a client may try again once by itself
				if _, _, err := fetch(t, &http.Client{Transport: tr}, u+auditPath); err == nil {
					t.Errorf("%s: %+v was not noticed", c.name, f)
				}
				s.mu.Lock()
				s.faults = nil
				s.mu.Unlock()
			}
		}
		tr.CloseIdleConnections()
	}
}

// A server that was closed listens again, with its rows, where it was.
func TestRestart(t *testing.T) {
	s := serverWith(quiet(), rows(3)...)
	u := start(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := fetch(t, client(t), u+auditPath); err == nil {
		t.Fatal("a closed server answered")
	}
	if again, err := s.listen(strings.TrimPrefix(u, "http://"), nil); err != nil || again != u {
		t.Fatalf("listening again: %q, %v", again, err)
	}
	if _, b, err := fetch(t, client(t), u+auditPath); err != nil || strings.Count(string(b), "request_id") != 3 {
		t.Errorf("after a restart: %d bytes, %v", len(b), err)
	}
	if _, err := s.listen(strings.TrimPrefix(u, "http://"), nil); err == nil {
		t.Error("listening twice did not fail")
	}
}

func TestSignatures(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	row := auditlog.Row{
		RequestID: "id", RequestTimestamp: noon.Unix(), ClientIP: "::1", Method: "POST", Path: "/a", Status: 201,
		Workspace: new("w"), Payload: new("{}"), RBACUserID: new("u"),
		Extra: map[string]jsontext.Value{"zone": jsontext.Value(`"z"`), "n": jsontext.Value(`12`), "nil": jsontext.Value("null")},
	}
	for _, c := range []struct {
		timestamp bool
		text      string
	}{
		{false, "::1|POST|12|/a|{}|u|id|201|w|z"},
		{true, "::1|POST|12|/a|{}|u|id|1788264000|201|w|z"},
	} {
		o := quiet()
		o.SigningKey, o.SignTimestamp = key, c.timestamp
		s := serverWith(o, row, auditlog.Row{RequestID: "own", Signature: new("mine")})
		for _, got := range all(t, s) {
			if got.RequestID == "own" {
				if text(got.Signature) != "mine" {
					t.Errorf("a signature that was given became %s", text(got.Signature))
				}
				continue
			}
			sum := sha256.Sum256([]byte(c.text))
			sig, err := base64.StdEncoding.DecodeString(text(got.Signature))
			if err != nil {
				t.Fatal(err)
			}
			if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], sig); err != nil {
				t.Errorf("timestamp %v: %v", c.timestamp, err)
			}
		}
	}
}
