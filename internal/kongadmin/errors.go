package kongadmin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// refusal is an answer of Kong other than 200.
type refusal struct {
	status  int
	message string // Kong's own, shortened
}

func (e *refusal) Error() string {
	s := fmt.Sprintf("%d %s", e.status, http.StatusText(e.status))
	if e.message != "" {
		s += ": " + e.message
	}
	return s
}

// isTLS tells whether a refusal is about TLS: 400 is what nginx, and with it Kong,
// answers to plain HTTP on a TLS port, or to a client without a certificate.
func (e *refusal) isTLS() bool {
	return e.status == http.StatusBadRequest &&
		(strings.Contains(e.message, "HTTPS") || strings.Contains(e.message, "SSL certificate"))
}

// notAPage is an answer of 200 that is no page of the audit log.
type notAPage struct{ what string }

func (e *notAPage) Error() string { return e.what }

// heals tells whether another attempt is worth making.
func heals(err error) bool {
	var r *refusal
	if errors.As(err, &r) {
		return r.status >= 500 || r.status == http.StatusTooManyRequests || r.status == http.StatusRequestTimeout
	}
	return !errors.Is(err, audit.ErrPageTooLarge) && !errors.Is(err, audit.ErrBadOffset) && !isTrust(err) &&
		!errors.Is(err, context.Canceled)
}

// isTrust tells whether TLS failed for want of trust, which no attempt heals.
func isTrust(err error) bool {
	var (
		verify *tls.CertificateVerificationError
		notTLS tls.RecordHeaderError
		op     *net.OpError
	)
	return errors.As(err, &verify) || errors.As(err, &notTLS) ||
		// crypto/tls reports what the other side said in this way.
		(errors.As(err, &op) && op.Op == "remote error") ||
		// net/http has no type for this one.
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// explain adds what a person can do about an error.
func (c *Client) explain(ctx context.Context, err error) error {
	var (
		r        *refusal
		np       *notAPage
		settings *audit.SettingsError
		dns      *net.DNSError
		op       *net.OpError
		timeout  net.Error
		hint     string
	)
	switch {
	case ctx.Err() != nil, errors.Is(err, audit.ErrPageTooLarge), errors.Is(err, audit.ErrBadOffset), errors.As(err, &settings):
		return err
	case errors.As(err, &r):
		hint = c.refusalHint(r)
		if hint == "" {
			return err
		}
	case errors.As(err, &np):
		return fmt.Errorf("%w (is KONG_ADMIN_API the Admin API itself, port 8001 or 8444, and not Kong Manager, a proxy port or a login page?)", err)
	case isTrust(err):
		hint = tlsHint
	case errors.As(err, &dns):
		return fmt.Errorf("%w (is the host in KONG_ADMIN_API spelt right, and known to this machine's DNS?)", err)
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("%w (is KONG_ADMIN_API right, the Admin API listening there, and no firewall between?)", err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w (no whole answer within %s: Kong or its database is slow or down; --kong-timeout waits longer)", err, c.opts.Timeout)
	default:
		return err
	}
	return audit.Settings(err, hint)
}

const tlsHint = "set KONG_ROOT_CA to the CA that signed the Admin API's certificate, check that KONG_ADMIN_API names a host in that certificate " +
	"(else --kong-tls-server-name) and has the right scheme (8001 is http, 8444 https), and set --kong-client-cert and --kong-client-key if it asks for a certificate"

func (c *Client) refusalHint(r *refusal) string {
	switch status := r.status; {
	case r.isTLS():
		return tlsHint
	case status == http.StatusUnauthorized && c.opts.Token == nil:
		return "Kong asks for an RBAC token: set KONG_SUPERADMIN=true and KONG_ADMIN_TOKEN (or KONG_ADMIN_TOKEN_FILE)"
	case status == http.StatusUnauthorized:
		return "Kong does not know this token: check KONG_ADMIN_TOKEN against the RBAC user's token"
	case status == http.StatusForbidden:
		return "the token's user may not read the audit log: give it a role with read on /audit/requests in the default workspace"
	case status == http.StatusNotFound:
		return "there is no audit log at this address: audit_log is off on this node, this is not Kong Enterprise, or KONG_ADMIN_API has a wrong path"
	case status >= 300 && status < 400:
		return "the Admin API redirects, which is not followed because the token would go along: set KONG_ADMIN_API to the address it redirects to"
	case status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout:
		return "Kong refused the query itself: check that KONG_ADMIN_API is the Admin API of Kong Enterprise, and --page-size (1 to 1000)"
	}
	return ""
}
