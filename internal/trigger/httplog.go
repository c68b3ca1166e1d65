package trigger

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/time/rate"
)

// maxHTTPLog is the largest body of http-log that is read, in bytes. A body with
// nothing but ids is much smaller; one entry with all its fields takes some kilobytes.
const maxHTTPLog = 1 << 20

// httpLog checks a request to HTTPLogPath: Kong's http-log plugin on the Admin
// API's route, for a Kong that cannot load this project's plugin. The secret is
// the password of Basic authentication; the user name does not matter. The body
// is one log entry or an array of them. Nothing is read of an entry but its
// request_id, and an entry without one asks for a poll.
func (h *handler) httpLog(w http.ResponseWriter, r *http.Request, limiter *rate.Limiter) ([]string, error) {
	secrets, err := h.begin(r, HTTPLogPath, maxHTTPLog, limiter)
	if err != nil {
		return nil, err
	}
	if len(secrets) > 0 {
		if !h.fits(HTTPLogPath, secrets, func(list []string) bool { return authenticated(list, r) }) {
			return nil, errPassword
		}
		if err := h.limit(limiter); err != nil {
			return nil, err
		}
	}
	body, done := h.body(w, r, maxHTTPLog)
	defer done()
	ids, anonymous, err := readHTTPLog(body)
	if err != nil {
		if _, ok := errors.AsType[*jsontext.SyntacticError](err); ok || errors.Is(err, errHTTPLog) {
			return nil, errHTTPLog
		}
		return nil, readError(err)
	}
	if anonymous && len(ids) > 0 {
		h.Poll() // Notify with the other ids is done when those have been seen
	}
	return ids, nil
}

var (
	errPassword = &refusal{http.StatusUnauthorized, "the password of Basic authentication is missing or wrong"}
	errHTTPLog  = &refusal{http.StatusBadRequest, "body is not a JSON object or an array of objects"}
)

// authenticated reports whether the request's password is one of the secrets.
func authenticated(secrets []string, r *http.Request) bool {
	_, password, ok := r.BasicAuth()
	if !ok || password == "" {
		return false
	}
	got := sha256.Sum256([]byte(password)) // of equal length, whatever was sent
	found := 0
	for _, secret := range secrets {
		want := sha256.Sum256([]byte(secret))
		found |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	return found == 1
}

// readHTTPLog returns the valid ids of one log entry or of an array of them, and
// whether an entry has none.
func readHTTPLog(r io.Reader) (ids []string, anonymous bool, err error) {
	// Kong writes a request's bytes as they came, and its names as they came.
	d := jsontext.NewDecoder(r, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
	entry := func() error {
		id, err := readHTTPLogEntry(d)
		switch {
		case err != nil:
		case id == "":
			anonymous = true
		default:
			ids = append(ids, id)
		}
		return err
	}
	if d.PeekKind() != '[' {
		err = entry()
	} else {
		_, err = d.ReadToken()
		for err == nil && d.PeekKind() != ']' {
			err = entry()
		}
		if err == nil {
			_, err = d.ReadToken()
		}
	}
	if err != nil {
		return nil, false, err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errHTTPLog
		}
		return nil, false, err
	}
	return ids, anonymous, nil
}

// readHTTPLogEntry reads one entry and returns its id if that is valid, and ""
// otherwise. It keeps nothing else.
func readHTTPLogEntry(d *jsontext.Decoder) (string, error) {
	begin, err := d.ReadToken()
	if err != nil {
		return "", err
	}
	if begin.Kind() != '{' {
		return "", errHTTPLog
	}
	id := ""
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return "", err
		}
		if name.String() != "request_id" || d.PeekKind() != '"' {
			if err := d.SkipValue(); err != nil {
				return "", err
			}
			continue
		}
		value, err := d.ReadToken()
		if err != nil {
			return "", err
		}
		if s := value.String(); ValidID(s) {
			id = s
		}
	}
	_, err = d.ReadToken()
	return id, err
}
