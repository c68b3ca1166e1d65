package cloudtrailtest

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

const (
	sigAlgorithm = "AWS4-HMAC-SHA256"
	sigTime      = "20060102T150405Z"
	maxSkew      = 5 * time.Minute
)

// scope is what a signing key is derived from, besides the secret.
type scope struct {
	keyID, date, region, service string
}

func (c scope) String() string { return c.date + "/" + c.region + "/" + c.service + "/aws4_request" }

// verify checks a request's signature, Signature Version 4 in the Authorization
// header: it signs the request again. Signing is AWS's own code on both sides, as the
// relay signs nothing itself.
func (s *Server) verify(r *http.Request, body []byte, service string) *awstest.Error {
	auth, e := parseAuthorization(r.Header.Get("Authorization"))
	if e != nil {
		return e
	}
	at, e := s.checkScope(r, auth, service)
	if e != nil {
		return e
	}
	now := s.o.Now()
	cred, e := s.Find(auth.keyID, r.Header.Get("X-Amz-Security-Token"), now)
	switch {
	case e != nil:
		return e
	case now.Sub(at) > maxSkew:
		return awstest.Refuse("InvalidSignatureException", "Signature expired: "+at.Format(sigTime)+" is now earlier than "+
			now.Add(-maxSkew).UTC().Format(sigTime)+" ("+now.UTC().Format(sigTime)+" - 5 min.)")
	case at.Sub(now) > maxSkew:
		return awstest.Refuse("InvalidSignatureException", "Signature not yet current: "+at.Format(sigTime)+" is still later than "+
			now.Add(maxSkew).UTC().Format(sigTime)+" ("+now.UTC().Format(sigTime)+" + 5 min.)")
	}
	want, err := s.signAgain(r, body, cred, auth, at)
	if err != nil || subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(want)) != 1 {
		return awstest.Refuse("InvalidSignatureException", "The request signature we calculated does not match the signature you provided. "+
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return nil
}

// signAgain returns the Authorization header that a request should have.
func (s *Server) signAgain(r *http.Request, body []byte, cred awstest.Credential, auth authorization, at time.Time) (string, error) {
	again := r.Clone(r.Context())
	again.Header = http.Header{}
	for name, values := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") || slices.Contains(auth.signed, lower) {
			again.Header[name] = values
		}
	}
	again.URL.Host = r.Host
	hash := sha256.Sum256(body)
	err := s.signer.SignHTTP(r.Context(), aws.Credentials{
		AccessKeyID: cred.AccessKeyID, SecretAccessKey: cred.SecretAccessKey, SessionToken: cred.SessionToken,
	}, again, hex.EncodeToString(hash[:]), auth.service, auth.region, at)
	return again.Header.Get("Authorization"), err
}

type authorization struct {
	scope
	signed []string
}

func parseAuthorization(header string) (authorization, *awstest.Error) {
	var a authorization
	if header == "" {
		return a, awstest.Refuse("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	rest, ok := strings.CutPrefix(header, sigAlgorithm+" ")
	if !ok {
		return a, awstest.Refuse("IncompleteSignatureException", "Authorization header does not begin with "+sigAlgorithm+".")
	}
	params := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		params[name] = value
	}
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if params[name] == "" {
			return a, awstest.Refuse("IncompleteSignatureException", "Authorization header requires '"+name+"' parameter.")
		}
	}
	// An access key id has no slash, but let one that has be unknown rather than malformed.
	c := strings.Split(params["Credential"], "/")
	n := len(c) - 4
	if n < 1 || c[n+3] != "aws4_request" {
		return a, awstest.Refuse("IncompleteSignatureException", "Credential must have exactly 5 slash-delimited elements, "+
			"e.g. keyid/date/region/service/term.")
	}
	a.scope = scope{strings.Join(c[:n], "/"), c[n], c[n+1], c[n+2]}
	a.signed = strings.Split(params["SignedHeaders"], ";")
	return a, nil
}

// checkScope returns the time of the signature.
func (s *Server) checkScope(r *http.Request, a authorization, service string) (time.Time, *awstest.Error) {
	at, err := time.Parse(sigTime, r.Header.Get("X-Amz-Date"))
	switch {
	case err != nil:
		return at, awstest.Refuse("IncompleteSignatureException", "Authorization header requires existence of an 'X-Amz-Date' header "+
			"of the form "+sigTime+".")
	case a.service != service:
		return at, awstest.Refuse("InvalidSignatureException", "Credential should be scoped to correct service: '"+service+"'.")
	case a.region != s.o.Region:
		return at, awstest.Refuse("InvalidSignatureException", "Credential should be scoped to a valid region.")
	case a.date != at.Format("20060102"):
		return at, awstest.Refuse("InvalidSignatureException", "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
	}
	return at, nil
}
