package kongadmin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

func rsaKey(t testing.TB, size int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, size)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Both forms that Kong may sign, and what is not as it was signed.
func TestVerification(t *testing.T) {
	key, other := rsaKey(t, 2048), rsaKey(t, 2048)
	payload, none, forged, removed := "{\"a\":\"é\\n|\xff\"}", "", "Zm9yZ2Vk", "token"
	odd := kongtest.Row{
		RequestID: "odd", RequestTimestamp: time.Now().Unix(), ClientIP: "::1", Method: "POST", Path: "/a?b=\"|\x01\"", Status: 201,
		Payload: &payload, Workspace: &none, RemovedFromPayload: &removed,
		Extra: map[string]json.RawMessage{
			"zone": json.RawMessage(`"caf\u00e9"`), "attempt": json.RawMessage("12"), "expire": json.RawMessage("99"), "nothing": json.RawMessage("null"),
		},
	}
	list := append(rows(5), odd)
	for name, c := range map[string]struct {
		timestamp bool
		check     *rsa.PublicKey
		change    func(*kongtest.Row)
		want      audit.Verification
	}{
		"without timestamp": {false, &key.PublicKey, nil, audit.Verified},
		"with timestamp":    {true, &key.PublicKey, nil, audit.VerifiedWithTimestamp},
		"no key":            {false, nil, nil, ""},
		"another key":       {false, &other.PublicKey, nil, audit.VerificationFailed},
		"forged":            {false, &key.PublicKey, func(r *kongtest.Row) { r.Signature = &forged }, audit.VerificationFailed},
		"no base64":         {false, &key.PublicKey, func(r *kongtest.Row) { s := "%"; r.Signature = &s }, audit.VerificationFailed},
		"empty":             {false, &key.PublicKey, func(r *kongtest.Row) { r.Signature = &none }, audit.Unsigned},
		"left out":          {false, &key.PublicKey, func(r *kongtest.Row) { r.Omit = []string{"signature"} }, audit.Unsigned},
		"null": {false, &key.PublicKey, func(r *kongtest.Row) {
			r.Extra = map[string]json.RawMessage{"signature": json.RawMessage("null")}
		}, audit.Unsigned},
		"not a text": {false, &key.PublicKey, func(r *kongtest.Row) {
			r.Extra = map[string]json.RawMessage{"signature": json.RawMessage("{}")}
		}, audit.VerificationFailed},
	} {
		t.Run(name, func(t *testing.T) {
			k, u := kong(t, kongtest.Options{SigningKey: key, SignTimestamp: c.timestamp, SkipReads: true})
			for _, r := range list {
				if c.change != nil {
					c.change(&r)
				}
				k.Add(r)
			}
			page, err := newClient(t, Options{URL: u, PublicKey: c.check}).Page(t.Context(), all)
			if err != nil || len(page.Entries) != len(list) {
				t.Fatalf("%d entries, %v", len(page.Entries), err) // delivered in any case
			}
			for _, e := range page.Entries {
				if e.Verification != c.want {
					t.Errorf("%s: %q, want %q", e.ID, e.Verification, c.want)
				}
			}
		})
	}
}

// Every field but the time that is left counts.
func TestVerificationOfChangedRow(t *testing.T) {
	key := rsaKey(t, 2048)
	k := kongtest.New(kongtest.Options{SigningKey: key})
	k.Add(kongtest.Row{RequestID: "a", RequestTimestamp: time.Now().Unix(), ClientIP: "::1", Method: "GET", Path: "/a", Status: 200})
	for row := range k.All() {
		raw := `{"request_id":"a","request_timestamp":5,"client_ip":"::1","method":"GET","path":"/a","status":200,"ttl":7,"signature":"` + *row.Signature + `"}`
		for old, c := range map[string]struct {
			changed string
			want    audit.Verification
		}{
			`"ttl":7`:               {`"ttl":6`, audit.Verified},
			`"request_timestamp":5`: {`"request_timestamp":6`, audit.Verified},
			`"method":"GET"`:        {`"method":"PUT"`, audit.VerificationFailed},
			`"status":200`:          {`"status":201`, audit.VerificationFailed},
			`"path":"/a"`:           {`"path":"/a","payload":""`, audit.VerificationFailed},
			`"client_ip":"::1",`:    {``, audit.VerificationFailed},
			`{`:                     {`{"workspace":null,`, audit.Verified},
		} {
			page, err := decodePage([]byte(`{"data":[`+strings.Replace(raw, old, c.changed, 1)+`]}`), pageDate, func(row string) audit.Verification { return verifySignature(&key.PublicKey, row) })
			if err != nil || page.Entries[0].Verification != c.want {
				t.Errorf("%s for %s: %+v, %v, want %s", c.changed, old, page.Entries, err, c.want)
			}
		}
	}
}

func TestParsePublicKey(t *testing.T) {
	key := rsaKey(t, 2048)
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
		text, want string // want is "" where it is taken
	}{
		"PKIX":                 {good, ""},
		"PKCS #1":              {encode("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&key.PublicKey), nil), ""},
		"certificate":          {certificate(&key.PublicKey, key), ""},
		"white space around":   {"\r\n  " + strings.ReplaceAll(good, "\n", "\r\n") + "\n\n", ""},
		"words before":         {"our key:\n" + good, ""},
		"curve":                {pkixOf(&curve.PublicKey), "not an RSA key"},
		"curve's certificate":  {certificate(&curve.PublicKey, curve), "not an RSA key"},
		"private key":          {encode("PRIVATE KEY", pkcs8, nil), "no public key"},
		"private key, PKCS #1": {encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key), nil), "no public key"},
		"too short to check":   {"-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALxcu2vkxqGQ6uQ8FBzWHmuYnhCbjUjT\n9nD4xDJ3rV0cBmUlDIX9n3tzYAbgX4O0jEyvJO6y3L9EYbFdYkcxkMsCAwEAAQ==\n-----END PUBLIC KEY-----\n", "shorter than 1024 bits"},
		"garbage in PEM":       {encode("PUBLIC KEY", []byte("garbage"), nil), "no public key"},
		"empty":                {"", "no PEM block"},
		"not PEM":              {"ssh-rsa AAAA", "no PEM block"},
		"cut":                  {good[:len(good)/2], "no PEM block"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParsePublicKey(c.text)
			switch {
			case c.want == "" && (err != nil || !got.Equal(&key.PublicKey)):
				t.Errorf("%v", err)
			case c.want != "" && (err == nil || got != nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
