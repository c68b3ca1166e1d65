package trigger

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// Advice returns what a person can do about an error of [Client.Notify], in words
// that follow "What to do: ".
func Advice(err error) string {
	var (
		answer  *AnswerError
		timeout net.Error
	)
	switch {
	case errors.As(err, &answer):
		return answerAdvice(answer.Status)
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "trust the authority that signed the certificate: ca_cert of the plugin, SSL_CERT_FILE for this command"
	case errors.As(err, new(x509.HostnameError)):
		return "use a name that the certificate is for, or get a certificate for this name"
	case errors.As(err, new(x509.CertificateInvalidError)):
		return "renew the certificate, and check the clocks on both sides"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the relay speaks plain HTTP: use http://, or put something that speaks TLS in front of it"
	case strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`): // an alert of TLS; net/http has no type for it
		return "what listens there speaks TLS only: use https://"
	case strings.Contains(err.Error(), "malformed HTTP "):
		return "what listens there does not speak HTTP, so it is not the relay: give the address of its --listen"
	case errors.As(err, new(*net.DNSError)):
		return "correct the name, or make it known where Kong runs"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: start relay serve, and set --listen (RELAY_LISTEN) to an address that can be reached from elsewhere, such as 0.0.0.0:8080"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "something drops the connection: open the port in firewalls, security groups and network policies"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "what listens there closes the connection: it may not be the relay, or it may speak TLS only, which needs https://"
	}
	return "check the address, and look at what lies between"
}

func answerAdvice(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return fmt.Sprintf("use the relay's secret, its RELAY_TRIGGER_SECRET; clocks may differ by %.0f minutes at most", Tolerance.Minutes())
	case http.StatusForbidden, http.StatusProxyAuthRequired:
		return "this answer does not come from the relay, but from a proxy or a firewall on the way"
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return "what answers there is not the relay's listener for triggers: give the address of its --listen, not of --ops-listen"
	case http.StatusBadRequest:
		return "the relay could not read the trigger: something on the way changed it, or the port speaks TLS, which needs https://"
	case http.StatusTooManyRequests:
		return "nothing: the relay polls for such a trigger too; its limit is --trigger-rate (RELAY_TRIGGER_RATE)"
	case http.StatusServiceUnavailable:
		return "the relay cannot store triggers: relay status says what is wrong with its ledger"
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return "something in front of the relay does not reach it: start relay serve, and look at the settings of what is in front"
	}
	if transient(status) {
		return "look into the relay's log"
	}
	return "what answers there may not be the relay: give the address of its --listen"
}
