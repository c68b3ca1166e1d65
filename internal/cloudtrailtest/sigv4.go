package cloudtrailtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Credential is an access key that the server knows.
type Credential struct {
	AccessKeyID     string
	SecretAccessKey string
	// SessionToken, of temporary credentials, must come with the request.
	SessionToken string
	// Expires is when temporary credentials end; zero is never.
	Expires time.Time
}

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

// keys remembers the last signing key of each service: deriving one takes four HMACs.
type keys map[string]derived

type derived struct {
	scope
	secret string
	key    []byte
}

func (k keys) signing(c scope, secret string) []byte {
	if d, ok := k[c.service]; ok && d.scope == c && d.secret == secret {
		return d.key
	}
	key := mac([]byte("AWS4"+secret), c.date)
	for _, part := range []string{c.region, c.service, "aws4_request"} {
		key = mac(key, part)
	}
	k[c.service] = derived{c, secret, key}
	return key
}

func mac(key []byte, s string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(s))
	return h.Sum(nil)
}

// verify checks a request's signature by AWS's published algorithm, Signature
// Version 4 in the Authorization header, for every service but S3.
func (s *Server) verify(r *http.Request, body []byte, service string) *apiError {
	auth, e := parseAuthorization(r.Header.Get("Authorization"))
	if e != nil {
		return e
	}
	at, e := s.checkScope(r, auth, service)
	if e != nil {
		return e
	}
	if e := checkSignedHeaders(r, auth.signed); e != nil {
		return e
	}
	now := s.o.Now()
	s.authMu.Lock()
	i := slices.IndexFunc(s.credentials, func(c Credential) bool { return c.AccessKeyID == auth.keyID })
	var cred Credential
	var key []byte
	if i >= 0 {
		cred = s.credentials[i]
		key = s.keys.signing(auth.scope, cred.SecretAccessKey)
	}
	s.authMu.Unlock()
	switch {
	case i < 0, cred.SessionToken != r.Header.Get("X-Amz-Security-Token"):
		return refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
	case !cred.Expires.IsZero() && !now.Before(cred.Expires):
		return refuse("ExpiredTokenException", "The security token included in the request is expired")
	case now.Sub(at) > maxSkew:
		return refuse("InvalidSignatureException", "Signature expired: "+at.Format(sigTime)+" is now earlier than "+
			now.Add(-maxSkew).UTC().Format(sigTime)+" ("+now.UTC().Format(sigTime)+" - 5 min.)")
	case at.Sub(now) > maxSkew:
		return refuse("InvalidSignatureException", "Signature not yet current: "+at.Format(sigTime)+" is still later than "+
			now.Add(maxSkew).UTC().Format(sigTime)+" ("+now.UTC().Format(sigTime)+" + 5 min.)")
	}
	hash := sha256.Sum256([]byte(canonicalRequest(r, auth.signed, body)))
	want := mac(key, sigAlgorithm+"\n"+at.Format(sigTime)+"\n"+auth.String()+"\n"+hex.EncodeToString(hash[:]))
	got, err := hex.DecodeString(auth.signature)
	if err != nil || subtle.ConstantTimeCompare(got, want) != 1 {
		return refuse("InvalidSignatureException", "The request signature we calculated does not match the signature you provided. "+
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return nil
}

type authorization struct {
	scope
	signed    []string
	signature string
}

func parseAuthorization(header string) (authorization, *apiError) {
	var a authorization
	if header == "" {
		return a, refuse("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	rest, ok := strings.CutPrefix(header, sigAlgorithm+" ")
	if !ok {
		return a, refuse("IncompleteSignatureException", "Authorization header does not begin with "+sigAlgorithm+".")
	}
	params := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		params[name] = value
	}
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if params[name] == "" {
			return a, refuse("IncompleteSignatureException", "Authorization header requires '"+name+"' parameter.")
		}
	}
	// An access key id has no slash, but let one that has be unknown rather than malformed.
	c := strings.Split(params["Credential"], "/")
	n := len(c) - 4
	if n < 1 || c[n+3] != "aws4_request" {
		return a, refuse("IncompleteSignatureException", "Credential must have exactly 5 slash-delimited elements, "+
			"e.g. keyid/date/region/service/term.")
	}
	a.scope = scope{strings.Join(c[:n], "/"), c[n], c[n+1], c[n+2]}
	a.signed = strings.Split(params["SignedHeaders"], ";")
	a.signature = params["Signature"]
	return a, nil
}

// checkScope returns the time of the signature.
func (s *Server) checkScope(r *http.Request, a authorization, service string) (time.Time, *apiError) {
	at, err := time.Parse(sigTime, r.Header.Get("X-Amz-Date"))
	switch {
	case err != nil:
		return at, refuse("IncompleteSignatureException", "Authorization header requires existence of an 'X-Amz-Date' header "+
			"of the form "+sigTime+".")
	case a.service != service:
		return at, refuse("InvalidSignatureException", "Credential should be scoped to correct service: '"+service+"'.")
	case a.region != s.o.Region:
		return at, refuse("InvalidSignatureException", "Credential should be scoped to a valid region.")
	case a.date != at.Format("20060102"):
		return at, refuse("InvalidSignatureException", "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
	}
	return at, nil
}

// checkSignedHeaders: the host and all x-amz- headers must be signed, the list
// in order and in lower case.
func checkSignedHeaders(r *http.Request, signed []string) *apiError {
	for i, name := range signed {
		if name != strings.ToLower(name) || i > 0 && signed[i-1] >= name {
			return refuse("InvalidSignatureException", "SignedHeaders must be sorted and in lower case.")
		}
	}
	if _, ok := slices.BinarySearch(signed, "host"); !ok {
		return refuse("InvalidSignatureException", "'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") {
			if _, ok := slices.BinarySearch(signed, lower); !ok {
				return refuse("InvalidSignatureException", "'"+name+"' must be a 'SignedHeader' in the AWS Authorization.")
			}
		}
	}
	return nil
}

func canonicalRequest(r *http.Request, signed []string, body []byte) string {
	var b strings.Builder
	b.WriteString(r.Method)
	b.WriteByte('\n')
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	b.WriteString(uriEncode(path, true))
	b.WriteByte('\n')
	b.WriteString(canonicalQuery(r.URL.RawQuery))
	b.WriteByte('\n')
	for _, name := range signed {
		b.WriteString(name)
		b.WriteByte(':')
		b.WriteString(canonicalHeader(r, name))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.WriteString(strings.Join(signed, ";"))
	b.WriteByte('\n')
	sum := sha256.Sum256(body)
	b.WriteString(hex.EncodeToString(sum[:]))
	return b.String()
}

func canonicalHeader(r *http.Request, name string) string {
	var values []string
	switch name {
	case "host":
		values = []string{r.Host}
	case "content-length":
		values = []string{strconv.FormatInt(r.ContentLength, 10)}
	default:
		values = r.Header.Values(name)
	}
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		space := false
		for _, c := range []byte(strings.Trim(v, " ")) {
			if c != ' ' || !space {
				b.WriteByte(c)
			}
			space = c == ' '
		}
	}
	return b.String()
}

func canonicalQuery(raw string) string {
	if raw == "" {
		return ""
	}
	var pairs [][2]string
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		pairs = append(pairs, [2]string{reencode(name), reencode(value)})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p[0] + "=" + p[1])
	}
	return b.String()
}

func reencode(s string) string {
	if d, err := url.QueryUnescape(s); err == nil {
		s = d
	}
	return uriEncode(s, false)
}

// uriEncode encodes every byte but A-Z a-z 0-9 - . _ ~ and, on request, the slash.
func uriEncode(s string, keepSlash bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9',
			c == '-', c == '.', c == '_', c == '~', c == '/' && keepSlash:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}
