package cloudtrailtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

func checksum(data string) string {
	sum := sha256.Sum256([]byte(data))
	return base64.StdEncoding.EncodeToString(sum[:])
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
	temporary := awstest.Credential{AccessKeyID: "ASIATEMP", SecretAccessKey: "temporary", SessionToken: "token", Expires: at.Add(time.Hour)}
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
			s := New(Options{Now: func() time.Time { return at.Add(c.clock) }})
			s.SetCredentials(awstest.Credential{AccessKeyID: AccessKeyID, SecretAccessKey: SecretAccessKey}, temporary)
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
	s.SetCredentials(awstest.Credential{AccessKeyID: AccessKeyID, SecretAccessKey: "rotated"})
	for secret, status := range map[string]int{SecretAccessKey: 403, "rotated": 200} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, signed(t, good("a"), at, func(in *sign) { in.credentials.SecretAccessKey = secret }))
		if w.Code != status {
			t.Errorf("got %d, want %d", w.Code, status)
		}
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-central-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature=5fa0", "a=b&c", "20150830T123600Z")
	f.Add("AWS4-HMAC-SHA256 Credential=////, SignedHeaders=;, Signature=", "%zz&=&+", "")
	s := New(Options{})
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
