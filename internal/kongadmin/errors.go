package kongadmin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// refusal is an answer of Kong other than 200, or that of a proxy which does not connect to it.
type refusal struct {
	status  int
	message string   // Kong's own, shortened
	server  string   // what answered, by its Server header, if that is not Kong
	proxy   *url.URL // that does not connect to Kong
}

func (e *refusal) Error() string {
	s := fmt.Sprintf("%d %s", e.status, http.StatusText(e.status))
	if e.proxy != nil {
		return "the proxy " + e.proxy.Redacted() + " answered " + s
	}
	if e.message != "" {
		s += ": " + e.message
	}
	if e.server != "" {
		s += " (said by " + e.server + ")"
	}
	return s
}

// Is reports whether the refusal says that there is no audit log.
func (e *refusal) Is(target error) bool {
	return target == audit.ErrNoAuditLog && e.status == http.StatusNotFound && e.proxy == nil
}

// plainToTLS reports whether a server with TLS complains about plain HTTP. nginx,
// and with it Kong, answers 400 to it, as Go does.
func (e *refusal) plainToTLS() bool {
	return e.status == http.StatusBadRequest && strings.Contains(e.message, "HTTPS")
}

// wantsCertificate reports whether nginx misses a client's certificate.
func (e *refusal) wantsCertificate() bool {
	return e.status == http.StatusBadRequest && strings.Contains(e.message, "SSL certificate")
}

// notAPage is an answer of 200 that is not a page of the audit log.
type notAPage struct{ what string }

func (e *notAPage) Error() string { return e.what }

// tokenError says that the token could not be had. It is not about Kong.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return "getting the Admin API token: " + e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

// mayPass reports whether another attempt is worth making.
func mayPass(err error) bool {
	if r, ok := errors.AsType[*refusal](err); ok {
		return passes(r.status)
	}
	return !errors.Is(err, audit.ErrPageTooLarge) && tlsHint(err) == "" && !errors.Is(err, context.Canceled)
}

func passes(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

// explain adds advice to an error, and says whether a person must act on it.
func (c *Client) explain(ctx context.Context, log logName, err error) error {
	if _, token := errors.AsType[*tokenError](err); token || ctx.Err() != nil || audit.NeedsPerson(err) ||
		errors.Is(err, audit.ErrPageTooLarge) || errors.Is(err, audit.ErrBadOffset) || errors.Is(err, audit.ErrUnsupportedQuery) {
		return err
	}
	if hint := c.personHint(log, err); hint != "" {
		return audit.NewSettingsError(c.nameProxy(err), hint)
	}
	return audit.WithHint(c.nameProxy(err), c.passingHint(err))
}

// via returns the proxy that requests pass, or nil.
func (c *Client) via() *url.URL {
	proxy, err := c.proxy(&http.Request{URL: c.base})
	if err != nil {
		return nil
	}
	return proxy
}

// nameProxy makes an error name the proxy that requests pass.
func (c *Client) nameProxy(err error) error {
	proxy := c.via()
	if r, ok := errors.AsType[*refusal](err); proxy == nil || ok && r.proxy != nil {
		return err
	}
	return fmt.Errorf("%w (through the proxy %s)", err, proxy.Redacted())
}

// personHint returns a hint for an error that a person must act on, or nothing if retrying
// may suffice.
func (c *Client) personHint(log logName, err error) string {
	r, refused := errors.AsType[*refusal](err)
	switch {
	case refused && r.proxy != nil:
		switch {
		case passes(r.status):
			return ""
		case r.status == http.StatusProxyAuthRequired:
			return "give the proxy's user and password in HTTPS_PROXY, or " + c.noProxy()
		}
		return "let the proxy connect to " + c.base.Host + ", or " + c.noProxy()
	case refused && c.via() != nil && c.base.Scheme == "http" && !passes(r.status):
		return "this may be the proxy's answer, not Kong's: " + c.noProxy()
	case refused:
		return c.refusalHint(log, r)
	}
	hint := tlsHint(err)
	if proxy := c.via(); hint != "" && proxy != nil {
		hint += "; the certificate may be the proxy's own: " + c.noProxy()
	}
	return hint
}

func (c *Client) noProxy() string {
	return "add " + c.base.Hostname() + " to NO_PROXY if the Admin API can be reached directly"
}

// passingHint returns a hint for an error that may pass by itself, or nothing.
func (c *Client) passingHint(err error) string {
	var (
		r       *refusal
		op      *net.OpError
		timeout net.Error
	)
	switch {
	case errors.As(err, &r) && c.via() != nil, errors.As(err, &op) && op.Op == "proxyconnect":
		return "check the proxy, or " + c.noProxy()
	case errors.As(err, &r):
		return passingRefusalHint(r)
	case audit.IsNotHTTP(err):
		return "what listens at " + c.base.Host + " does not speak HTTP, so it is not the Admin API: check host and port in KONG_ADMIN_API (8001, or 8444 with https://)"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "something cuts Kong's answers short: look at what is between (timeouts and size limits of a proxy or load balancer) and at Kong's error log"
	case errors.As(err, new(*notAPage)):
		return "check that KONG_ADMIN_API is the Admin API itself (port 8001 or 8444), and not Kong Manager, a proxy port or a login page"
	case errors.As(err, new(*net.DNSError)):
		return "check that the host in KONG_ADMIN_API is spelt right and known to this machine's DNS"
	case errors.As(err, &op) && op.Op == "dial":
		return "check that KONG_ADMIN_API is right, the Admin API listens there, and no firewall stands between"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		hint := "something closes connections without an answer: check that host and port in KONG_ADMIN_API are the Admin API's; "
		if c.base.Scheme == "http" {
			hint += "if the Admin API speaks TLS there, give KONG_ADMIN_API with https://; else "
		}
		return hint + "look at Kong's error log, and at what is between (a firewall, a load balancer)"
	case strings.Contains(err.Error(), "TLS handshake timeout"): // net/http has no type for it
		return "what listens at " + c.base.Host + " does not answer in TLS: if it is the Admin API (8444; or http:// and 8001), Kong hangs or is overloaded; else correct host and port in KONG_ADMIN_API"
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("Kong or its database is slow or down: it gave no whole page within %s; --kong-timeout waits longer", c.opts.Timeout)
	}
	return ""
}

// passingRefusalHint returns a hint for a refusal that may pass by itself.
func passingRefusalHint(r *refusal) string {
	switch {
	case r.status == http.StatusTooManyRequests:
		return "something limits how often the Admin API may be asked: let it pass the relay's requests"
	case r.server != "":
		return "this is the answer of " + r.server + ", which stands before Kong: look at its log, and whether Kong runs behind it; or make KONG_ADMIN_API the Admin API itself"
	}
	return "look at Kong's error log and at its database: Kong answers so when the database is down or slow"
}

const (
	plainHint = "give KONG_ADMIN_API with https:// (the Admin API's TLS port is 8444 by default), or name its plain port (8001)"
	tlsToHint = "give KONG_ADMIN_API with http:// (the Admin API's plain port is 8001 by default), or name its TLS port (8444)"
	certHint  = "set --kong-client-cert and --kong-client-key to a certificate that the Admin API accepts"
)

// tlsHint returns a hint where TLS fails for a reason that no other attempt
// changes, and nothing for any other error.
func tlsHint(err error) string {
	var (
		verification *tls.CertificateVerificationError
		op           *net.OpError
	)
	switch text := err.Error(); {
	case errors.As(err, &verification):
		return certificateHint(verification)
	// net/http has no type for the second one.
	case errors.As(err, new(tls.RecordHeaderError)), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return tlsToHint
	case audit.IsTLSAlert(err):
		return plainHint
	// crypto/tls reports what the other side said in this way.
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(text, "protocol version"):
		return "let the Admin API offer TLS 1.2 or later"
	case errors.As(err, &op) && op.Op == "remote error":
		return certHint
	}
	return ""
}

// certificateHint returns a hint for a certificate that is not trusted.
func certificateHint(err *tls.CertificateVerificationError) string {
	var (
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err.Err, &name):
		if len(name.Certificate.DNSNames)+len(name.Certificate.IPAddresses) == 0 {
			return "the certificate names its host only as the common name, as Kong's default certificate does: " +
				"set KONG_ROOT_CA to the certificate itself, which is then trusted for any name"
		}
		return "use a host name of the certificate in KONG_ADMIN_API, or give it with --kong-tls-server-name"
	case errors.As(err.Err, new(x509.UnknownAuthorityError)):
		return "set KONG_ROOT_CA to the CA that signed the Admin API's certificate, or to that certificate itself if it is self-signed (PEM text, or the path of a file)"
	case errors.As(err.Err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return fmt.Sprintf("renew the certificate of %s, which is valid from %s to %s, or set this machine's clock",
			invalid.Cert.Subject, invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return "give the Admin API a certificate for servers, or set KONG_ROOT_CA to its certificate itself"
}

func (c *Client) refusalHint(log logName, r *refusal) string {
	switch status := r.status; {
	case r.plainToTLS():
		return plainHint
	case r.wantsCertificate():
		return certHint
	case status == http.StatusUnauthorized && c.opts.Token == nil:
		return "Kong asks for an RBAC token: set KONG_SUPERADMIN=true and KONG_ADMIN_TOKEN (or KONG_ADMIN_TOKEN_FILE)"
	case status == http.StatusUnauthorized:
		return "Kong does not know this token: check KONG_ADMIN_TOKEN against the RBAC user's token"
	case status == http.StatusForbidden && strings.Contains(strings.ToLower(r.message), "license"):
		return "Kong has no valid Enterprise licence, and without one it keeps no audit log: renew KONG_LICENSE_DATA of the node at KONG_ADMIN_API"
	case status == http.StatusForbidden:
		return "the token's user may not read the audit log: give it a role with read on /audit/" + string(log) + " in the default workspace"
	case status == http.StatusNotFound:
		return "there is no audit log at this address: audit_log is off on this node, this is not Kong Enterprise, or KONG_ADMIN_API has a wrong path"
	case status == http.StatusProxyAuthRequired:
		return "a proxy stands between and asks for user and password: give them in HTTPS_PROXY, or name Kong's host in NO_PROXY"
	case status >= 300 && status < 400:
		return "the Admin API redirects, which is not followed because the token would go along: set KONG_ADMIN_API to the address it redirects to"
	case status >= 400 && status < 500 && !passes(status):
		return "Kong refused the query itself: check that KONG_ADMIN_API is the Admin API of Kong Enterprise, and --page-size (1 to 1000)"
	}
	return ""
}
