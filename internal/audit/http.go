package audit

import "strings"

// IsNotHTTP reports whether err is net/http's for an answer that is not HTTP. There is no type for it.
func IsNotHTTP(err error) bool { return strings.Contains(err.Error(), "malformed HTTP ") }

// IsTLSAlert reports whether err is net/http's for an answer that is an alert of TLS: a server that
// speaks only TLS got a request in clear.
func IsTLSAlert(err error) bool {
	return strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`)
}
