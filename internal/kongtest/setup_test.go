package kongtest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

func TestTLS(t *testing.T) {
	s := serverWith(Options{ClientCert: true}, rows(3)...)
	u, err := s.StartTLS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	ca, err := s.CA()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := s.ClientCertificate()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("the authority is not PEM")
	}
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
	if again, err := s.Listen(strings.TrimPrefix(u, "http://")); err != nil || again != u {
		t.Fatalf("listening again: %q, %v", again, err)
	}
	if _, b, err := fetch(t, client(t), u+auditPath); err != nil || strings.Count(string(b), "request_id") != 3 {
		t.Errorf("after a restart: %d bytes, %v", len(b), err)
	}
	if _, err := s.Listen(strings.TrimPrefix(u, "http://")); err == nil {
		t.Error("listening twice did not fail")
	}
}

func TestSignatures(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	row := Row{
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
		s := serverWith(o, row, Row{RequestID: "own", Signature: new("mine")})
		for got := range s.All() {
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
				t.Errorf("timestamp %v: %v; signed was %q", c.timestamp, err, signedText(&row, c.timestamp, nil))
			}
		}
	}
	if got := string(signedText(&Row{Method: "GET", Omit: []string{"path", "client_ip"}}, false, []string{"request_id"})); got != "GET|0" {
		t.Errorf("without what is left out: %q", got)
	}
}

func TestRelease(t *testing.T) {
	for _, c := range []struct {
		version string
		order   Order
		next    Next
		omit    int
	}{
		{"2.7.1", Unordered, NextBare, 3},
		{"2.8.1.1", Unordered, NextBare, 2},
		{"3.1.0.0", Unordered, NextNoFilters, 2},
		{"3.4.3.7", Unordered, NextNoFilters, 0},
		{"3.4.3.8", NewestFirst, NextNoFilters, 0},
		{"3.4.3.9", Filtered, NextNoFilters, 0},
		{"3.5.0.3", Unordered, NextNoFilters, 0},
		{"3.5.0.4", NewestFirst, NextNoFilters, 0},
		{"3.5.0.5", Filtered, NextNoFilters, 0},
		{"3.6.1.4", Unordered, NextNoFilters, 0},
		{"3.6.1.5", Filtered, NextNoFilters, 0},
		{"3.7.0.0", Filtered, NextNoFilters, 0},
		{"3.9.1.1", Filtered, NextFull, 0},
		{"3.14", Filtered, NextFull, 0},
	} {
		o, err := Release(c.version)
		if err != nil || o.Order != c.order || o.Next != c.next || len(o.Omit) != c.omit {
			t.Errorf("Release(%s) = order %d, next %d, omit %v, %v", c.version, o.Order, o.Next, o.Omit, err)
		}
	}
	if o, _ := Release("2.8.1.1"); o.Version != "2.8.1.1-enterprise-edition" {
		t.Errorf("version = %s", o.Version)
	}
	for _, bad := range []string{"", "3", "3.x", "3.9.1.1.1", "3.-1"} {
		if _, err := Release(bad); err == nil {
			t.Errorf("Release(%q) did not fail", bad)
		}
	}
}

func TestGenerate(t *testing.T) {
	mix := Mix{To: noon, NoIDEvery: 100}
	all := slices.Collect(Generate(20_000, 3, mix))
	if again := slices.Collect(Generate(20_000, 3, mix)); !reflect.DeepEqual(all, again) {
		t.Error("one seed gave two logs")
	}
	if other := slices.Collect(Generate(20_000, 4, mix)); reflect.DeepEqual(all, other) {
		t.Error("two seeds gave one log")
	}
	count := map[string]int{}
	ids := map[string]bool{}
	for i, row := range all {
		ids[row.RequestID] = true
		is := func(name string, yes bool) {
			if yes {
				count[name]++
			}
		}
		is("no id", row.RequestID == "")
		is("empty path", row.Path == "")
		is("no ttl", slices.Contains(row.Omit, "ttl"))
		is("no user", row.RBACUserID == nil)
		is("array", strings.HasPrefix(text(row.Payload), "["))
		is("text", strings.HasPrefix(text(row.Payload), "plain"))
		is("object", strings.HasPrefix(text(row.Payload), "{"))
		is("large", len(text(row.Payload)) == 300_000)
		is("unicode", strings.Contains(text(row.Payload), "東京"))
		is("unknown", row.Extra != nil)
		is("same second", i > 0 && row.RequestTimestamp == all[i-1].RequestTimestamp)
		is("not in order", i > 0 && row.RequestTimestamp < all[i-1].RequestTimestamp)
		is("out of range", row.RequestTimestamp < noon.Add(-29*24*time.Hour).Unix() || row.RequestTimestamp > noon.Unix())
		is("invalid", len(text(row.Payload)) > 100_000 && !jsontext.Value(*row.Payload).IsValid(anyBytes))
	}
	for _, name := range []string{"empty path", "no ttl", "no user", "array", "text", "object", "unicode", "unknown", "same second"} {
		if count[name] < 100 {
			t.Errorf("%s: %d rows", name, count[name])
		}
	}
	if count["large"] != 4 || count["no id"] != 200 || count["not in order"] != 0 || count["out of range"] != 0 || count["invalid"] != 0 {
		t.Errorf("counts = %v", count)
	}
	if len(ids) != 20_000-200+1 {
		t.Errorf("%d ids", len(ids))
	}
	for row := range Generate(2000, 1, Mix{To: noon, Plain: true}) {
		if row.Path == "" || row.Omit != nil || row.Extra != nil || row.RBACUserID == nil || len(text(row.Payload)) > 1000 {
			t.Fatalf("plain row %+v", row)
		}
	}
}
