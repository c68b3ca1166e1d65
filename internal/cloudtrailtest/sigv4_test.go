package cloudtrailtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

func checksum(data string) string {
	sum := sha256.Sum256([]byte(data))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// vector is an example that AWS has published: its test suite for signature
// version 4, and the ListUsers example of its guide.
type vector struct {
	method, url, body string
	header            http.Header
	service           string
	signed            string
	signature         string
}

var vectors = map[string]vector{
	"get-vanilla": {
		method: "GET", url: "http://example.amazonaws.com/", service: "service", signed: "host;x-amz-date",
		signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
	},
	"get-vanilla-query-order-key-case": {
		method: "GET", url: "http://example.amazonaws.com/?Param2=value2&Param1=value1", service: "service", signed: "host;x-amz-date",
		signature: "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
	},
	"post-vanilla": {
		method: "POST", url: "http://example.amazonaws.com/", service: "service", signed: "host;x-amz-date",
		signature: "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
	},
	"get-header-value-trim": {
		method: "GET", url: "http://example.amazonaws.com/", service: "service", signed: "host;my-header1;my-header2;x-amz-date",
		header:    http.Header{"My-Header1": {" value1"}, "My-Header2": {`"a   b   c"`}},
		signature: "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
	},
	"post-x-www-form-urlencoded": {
		method: "POST", url: "http://example.amazonaws.com/", service: "service", signed: "content-type;host;x-amz-date", body: "Param1=value1",
		header:    http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
		signature: "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
	},
	"ListUsers": {
		method: "GET", url: "http://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", service: "iam", signed: "content-type;host;x-amz-date",
		header:    http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}},
		signature: "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
	},
}

func TestPublishedVectors(t *testing.T) {
	at := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	for name, v := range vectors {
		t.Run(name, func(t *testing.T) {
			s := New(Options{Region: "us-east-1", Now: func() time.Time { return at }})
			request := func(signature string) *http.Request {
				r := httptest.NewRequestWithContext(t.Context(), v.method, v.url, strings.NewReader(v.body))
				maps.Copy(r.Header, v.header)
				r.Header.Set("X-Amz-Date", "20150830T123600Z")
				r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/"+v.service+
					"/aws4_request, SignedHeaders="+v.signed+", Signature="+signature)
				return r
			}
			if e := s.verify(request(v.signature), []byte(v.body), v.service); e != nil {
				t.Errorf("refused: %v", e)
			}
			wrong := "0" + v.signature[1:]
			if v.signature[0] == '0' {
				wrong = "1" + v.signature[1:]
			}
			if e := s.verify(request(wrong), []byte(v.body), v.service); e == nil {
				t.Error("a wrong signature was accepted")
			}
			if e := s.verify(request(v.signature), []byte(v.body+"x"), v.service); e == nil {
				t.Error("another body was accepted")
			}
		})
	}
}

func TestPublishedSigningKey(t *testing.T) {
	got := hex.EncodeToString(keys{}.signing(scope{"AKIDEXAMPLE", "20150830", "us-east-1", "iam"}, SecretAccessKey))
	if want := "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCanonicalURI(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), "GET", "http://host.foo.com/%20/foo", nil)
	if got := strings.Split(canonicalRequest(r, nil, nil), "\n")[1]; got != "/%2520/foo" {
		t.Errorf("got %s", got)
	}
}

// sign is what a test changes about a signed request.
type sign struct {
	credentials aws.Credentials
	region      string
	service     string
}

// signed makes a request with the SDK's own signer.
func signed(t testing.TB, body []byte, at time.Time, change func(*sign)) *http.Request {
	t.Helper()
	in := sign{aws.Credentials{AccessKeyID: AccessKeyID, SecretAccessKey: SecretAccessKey}, "eu-central-1", "cloudtrail-data"}
	if change != nil {
		change(&in)
	}
	r := httptest.NewRequestWithContext(t.Context(), "POST", "http://127.0.0.1:4566/PutAuditEvents?"+toChannel+"&externalId=a%2Bb%3D", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(context.Background(), in.credentials, r, hex.EncodeToString(sum[:]), in.service, in.region, at); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSignedBySDK(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	body := good("a")
	temporary := Credential{AccessKeyID: "ASIATEMP", SecretAccessKey: "temporary", SessionToken: "token", Expires: at.Add(time.Hour)}
	asTemporary := func(token string) func(*sign) {
		return func(in *sign) {
			in.credentials = aws.Credentials{AccessKeyID: "ASIATEMP", SecretAccessKey: "temporary", SessionToken: token}
		}
	}
	for name, c := range map[string]struct {
		sign  func(*sign)
		then  func(*http.Request)
		clock time.Duration
		code  string
	}{
		"plain":            {},
		"temporary":        {sign: asTemporary("token")},
		"5 minutes late":   {clock: 5 * time.Minute},
		"5 minutes early":  {clock: -5 * time.Minute},
		"too late":         {clock: 5*time.Minute + time.Second, code: "InvalidSignatureException"},
		"too early":        {clock: -5*time.Minute - time.Second, code: "InvalidSignatureException"},
		"expired":          {sign: asTemporary("token"), clock: time.Hour, code: "ExpiredTokenException"},
		"wrong token":      {sign: asTemporary("other"), code: "UnrecognizedClientException"},
		"no token":         {sign: asTemporary(""), code: "UnrecognizedClientException"},
		"unknown key":      {sign: func(in *sign) { in.credentials.AccessKeyID = "AKIDOTHER" }, code: "UnrecognizedClientException"},
		"wrong secret":     {sign: func(in *sign) { in.credentials.SecretAccessKey = "other" }, code: "InvalidSignatureException"},
		"wrong Region":     {sign: func(in *sign) { in.region = "us-east-1" }, code: "InvalidSignatureException"},
		"wrong service":    {sign: func(in *sign) { in.service = "cloudtrail" }, code: "InvalidSignatureException"},
		"unsigned":         {then: func(r *http.Request) { r.Header.Del("Authorization") }, code: "MissingAuthenticationTokenException"},
		"basic auth":       {then: func(r *http.Request) { r.SetBasicAuth("a", "b") }, code: "IncompleteSignatureException"},
		"no signature":     {then: edit(", Signature=", ", Sig="), code: "IncompleteSignatureException"},
		"short credential": {then: edit("/eu-central-1", ""), code: "IncompleteSignatureException"},
		"host not signed":  {then: edit(";host;", ";"), code: "InvalidSignatureException"},
		"no date":          {then: func(r *http.Request) { r.Header.Del("X-Amz-Date") }, code: "IncompleteSignatureException"},
		"date of another day": {
			then: edit("/20260102/", "/20260103/"), code: "InvalidSignatureException",
		},
		"another host":        {then: func(r *http.Request) { r.Host = "elsewhere" }, code: "InvalidSignatureException"},
		"another query":       {then: func(r *http.Request) { r.URL.RawQuery += "x" }, code: "InvalidSignatureException"},
		"another type":        {then: func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, code: "InvalidSignatureException"},
		"a header not signed": {then: func(r *http.Request) { r.Header.Set("X-Amz-Meta", "x") }, code: "InvalidSignatureException"},
		"another body": {then: func(r *http.Request) {
			changed := bytes.Replace(body, []byte("curl"), []byte("curk"), 1)
			r.Body = http.NoBody
			*r = *r.Clone(r.Context())
			r.Body = readCloser{bytes.NewReader(changed)}
		}, code: "InvalidSignatureException"},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Options{Now: func() time.Time { return at.Add(c.clock) }, Credentials: []Credential{
				{AccessKeyID: AccessKeyID, SecretAccessKey: SecretAccessKey}, temporary,
			}})
			r := signed(t, body, at, c.sign)
			if c.then != nil {
				c.then(r)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			got := w.Header().Get("X-Amzn-ErrorType")
			got, _, _ = strings.Cut(got, ":")
			if got != c.code || (c.code == "") != (s.Times("a") == 1) || c.code != "" && w.Code != http.StatusForbidden {
				t.Errorf("got %d %q, want %q: %s", w.Code, got, c.code, w.Body)
			}
		})
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// edit changes the Authorization header.
func edit(old, with string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, with, 1))
	}
}

func TestSetCredentials(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := New(Options{Now: func() time.Time { return at }})
	s.SetCredentials(Credential{AccessKeyID: AccessKeyID, SecretAccessKey: "rotated"})
	for secret, status := range map[string]int{SecretAccessKey: 403, "rotated": 200} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, signed(t, good("a"), at, func(in *sign) { in.credentials.SecretAccessKey = secret }))
		if w.Code != status {
			t.Errorf("got %d, want %d", w.Code, status)
		}
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature=5fa0", "a=b&c", "20150830T123600Z")
	f.Add("AWS4-HMAC-SHA256 Credential=////, SignedHeaders=;, Signature=", "%zz&=&+", "")
	s := New(Options{Region: "us-east-1"})
	f.Fuzz(func(t *testing.T, header, query, date string) {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "http://example.amazonaws.com/", nil)
		r.URL.RawQuery = query
		r.Header.Set("Authorization", header)
		r.Header.Set("X-Amz-Date", date)
		if e := s.verify(r, nil, "service"); e == nil {
			t.Error("accepted")
		}
	})
}
