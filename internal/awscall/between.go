package awscall

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"time"

	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// product matches the name of a server program, perhaps with its version. A match is too
// short to hold a secret.
var product = regexp.MustCompile(`^[A-Za-z][A-Za-z-]{0,14}(/[0-9][0-9.]{0,11})?$`)

// explainIntermediary fills in f for an answer without an error code. Such an answer comes
// from something between the relay and AWS, so it says nothing about entries.
func (s *Service) explainIntermediary(f *Failure, resp *http.Response) {
	f.Code, f.NotAWS = fmt.Sprintf("HTTP%d", f.status), true
	f.between = "something"
	between := "something between the relay and AWS answers, or another service"
	if server := product.FindString(resp.Header.Get("Server")); server != "" {
		f.between = server
		between = server + " answers in AWS's place"
	}
	host := ""
	if resp.Request != nil {
		host = resp.Request.URL.Host
		if proxy, err := http.ProxyFromEnvironment(resp.Request); err == nil && proxy != nil {
			between = "the proxy " + proxy.Host + " may answer in AWS's place"
			if f.between == "something" {
				f.between = "something behind the proxy " + proxy.Host
			}
		}
	}
	f.Hint = fmt.Sprintf("%s (%s): check HTTPS_PROXY, firewalls, %s and AWS_ENDPOINT_URL", between, host, s.Endpoint)
	switch {
	case f.status == http.StatusTooManyRequests:
		f.AnyCall = true
	case f.status == http.StatusRequestEntityTooLarge:
		f.Kind = TooLarge
	case f.status < 400, f.status == http.StatusProxyAuthRequired, f.status == http.StatusUnauthorized:
		f.Kind, f.AnyCall = Settings, true
	}
}

// explainTransport returns what the error of a call means that got no answer.
func (s *Service) explainTransport(sent *smithyhttp.RequestSendError) *Failure {
	var (
		proxy *proxyError
		cert  *tls.CertificateVerificationError
		dns   *net.DNSError
		dial  *net.OpError
		at    *url.Error
		limit interface{ Timeout() bool }
		host  = "the endpoint"
		plain bool // no TLS, which AWS does not offer
	)
	if errors.As(sent, &at) {
		if u, err := url.Parse(at.URL); err == nil {
			host, plain = u.Host, u.Scheme == "http"
		}
	}
	f := Failure{
		Code: "Connection", Reason: "the connection to " + host + " failed: whether AWS accepted the call is unknown",
		Hint: "look at what is between the relay and " + host + ": something cuts connections",
	}
	switch {
	case errors.As(sent, &proxy):
		f.Code, f.Reason, f.AnyCall = "Proxy", proxy.Error(), true
		f.Hint = "let the proxy " + proxy.proxy + " connect to " + host + ", or name another in HTTPS_PROXY, or add the host to NO_PROXY"
		if proxy.status == http.StatusProxyAuthRequired || proxy.status == http.StatusForbidden {
			f.Kind = Settings
		}
	case errors.As(sent, &cert):
		f.Kind, f.Code, f.AnyCall = Settings, "Certificate", true
		f.Reason, f.Hint = certificate(cert, host)
	case s.explainProtocol(&f, sent, host):
	case errors.As(sent, &dns):
		f.Code, f.Reason, f.AnyCall = "Connection", "the name "+dns.Name+" does not resolve", true
		f.Hint = fmt.Sprintf("check REGION, %s, and this machine's name server", s.Endpoint)
	case errors.As(sent, &dial) && (dial.Op == "dial" || dial.Op == "proxyconnect"):
		f.Reason, f.AnyCall = "no connection to "+host+" ("+dial.Op+")", true
		f.Hint = "check the way to " + host + ": routes, NAT or an interface endpoint, security groups, HTTPS_PROXY"
	case errors.As(sent, &limit) && limit.Timeout():
		f.Code, f.Reason = "Timeout", "no answer from "+host+" in time: whether AWS accepted the call is unknown"
		f.Hint = "look at what is between the relay and " + host + ": something takes the connection and does not answer"
	case plain:
		f.Hint = "check host, port and scheme in " + s.Endpoint + " and AWS_ENDPOINT_URL: what listens at " + host + " closes connections; it may speak TLS only, or no HTTP"
	}
	if proxy == nil && at != nil && f.Code != "Certificate" {
		if by := proxyOf(at.URL); by != "" {
			f.Hint += "; the call goes through the proxy " + by + " (HTTPS_PROXY, NO_PROXY)"
		}
	}
	return s.failure(sent, f)
}

// explainProtocol fills in f if a host speaks another protocol than the one that the call was made
// in, and reports whether it does.
func (s *Service) explainProtocol(f *Failure, sent error, host string) bool {
	switch {
	case errors.Is(sent, http.ErrSchemeMismatch), errors.As(sent, new(tls.RecordHeaderError)):
		f.Kind, f.Code, f.Reason, f.AnyCall = Settings, "PlainHTTP", host+" answers without TLS", true
		f.Hint = "what answers there is not AWS: correct " + s.Endpoint + " and AWS_ENDPOINT_URL (http:// for an emulator without TLS), or HTTPS_PROXY"
	case audit.IsTLSAlert(sent):
		f.Kind, f.Code, f.Reason, f.AnyCall = Settings, "PlainHTTP", host+" speaks TLS only", true
		f.Hint = "give the address in AWS_ENDPOINT_URL, or that in HTTPS_PROXY, with the scheme that is spoken there"
	case audit.IsNotHTTP(sent):
		f.Reason = host + " answers with something that is not HTTP: whether AWS accepted the call is unknown"
		f.Hint = "what answers there is not AWS: correct " + s.Endpoint + " and AWS_ENDPOINT_URL, or HTTPS_PROXY"
	default:
		return false
	}
	return true
}

// proxyOf returns the host of the proxy through which a URL is called, or the empty string.
func proxyOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u})
	if err != nil || proxy == nil {
		return ""
	}
	return proxy.Host
}

// certificate returns why the certificate of a host was not accepted, and a hint.
func certificate(err *tls.CertificateVerificationError, host string) (reason, hint string) {
	var (
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	const between = "a proxy or firewall that inspects what passes, or an endpoint that is not AWS's own"
	switch {
	case errors.As(err.Err, &name):
		return "the certificate is not for the name " + host,
			"look at AWS_ENDPOINT_URL and at this machine's name server: what answers at that name is " + between
	case errors.As(err.Err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return "the certificate of " + host + " has expired, or is not valid yet",
			fmt.Sprintf("set this machine's clock, or renew the certificate of what answers (%s), which is valid from %s to %s",
				between, invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return "the certificate of " + host + " was not accepted",
		"name the CA that signed it in AWS_CA_BUNDLE, if " + between + ", is meant to answer there"
}

// maxSkew is how far this machine's clock may be off before that explains a refused
// signature. AWS refuses signatures from five minutes on; the Date of the answer, with which
// the clock is compared, is a little old.
const maxSkew = 4 * time.Minute

// skew compares this machine's clock with the Date of an answer. If it is off by more than
// maxSkew, skew returns by how much: "5m0s ahead of", for example.
func skew(resp *http.Response) (string, bool) {
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return "", false
	}
	switch d := time.Since(at).Round(time.Second); {
	case d > maxSkew:
		return d.String() + " ahead of", true
	case d < -maxSkew:
		return (-d).String() + " behind", true
	}
	return "", false
}
