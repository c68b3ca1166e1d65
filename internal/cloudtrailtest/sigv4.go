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
	sigTime = "20060102T150405Z"
	maxSkew = 5 * time.Minute
)

// verify checks a request's signature, Signature Version 4 in the Authorization header, by
// signing the request again. AWS's own code signs on both sides, as the relay signs nothing
// itself.
func (s *Server) verify(r *http.Request, body []byte, service string) *awstest.Error {
	now := s.o.Now()
	signature, e := s.Signed(r, service, region, now)
	if e != nil {
		return e
	}
	at, err := time.Parse(sigTime, r.Header.Get("X-Amz-Date"))
	switch {
	case err != nil:
		return awstest.Refuse("IncompleteSignatureException", "Authorization header requires existence of an 'X-Amz-Date' header of the form "+sigTime+".")
	case signature.Date != at.Format("20060102"):
		return awstest.Refuse("InvalidSignatureException", "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
	case now.Sub(at) > maxSkew:
		return awstest.Refuse("InvalidSignatureException", "Signature expired: "+at.Format(sigTime)+" is now earlier than "+now.Add(-maxSkew).UTC().Format(sigTime))
	case at.Sub(now) > maxSkew:
		return awstest.Refuse("InvalidSignatureException", "Signature not yet current: "+at.Format(sigTime)+" is still later than "+now.Add(maxSkew).UTC().Format(sigTime))
	}
	want, err := s.signAgain(r, body, signature, service, at)
	if err != nil || subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(want)) != 1 {
		return awstest.Refuse("InvalidSignatureException", "The request signature we calculated does not match the signature you provided. "+
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return nil
}

// signAgain returns the Authorization header that a request should have.
func (s *Server) signAgain(r *http.Request, body []byte, signature awstest.Signature, service string, at time.Time) (string, error) {
	cred, signed := signature.Credential, strings.Split(signature.Headers, ";")
	again := r.Clone(r.Context())
	again.Header = http.Header{}
	for name, values := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") || slices.Contains(signed, lower) {
			again.Header[name] = values
		}
	}
	again.URL.Host = r.Host
	hash := sha256.Sum256(body)
	err := s.signer.SignHTTP(r.Context(), aws.Credentials{
		AccessKeyID: cred.AccessKeyID, SecretAccessKey: cred.SecretAccessKey, SessionToken: cred.SessionToken,
	}, again, hex.EncodeToString(hash[:]), service, region, at)
	return again.Header.Get("Authorization"), err
}
