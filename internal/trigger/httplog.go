package trigger

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxHTTPLog is the largest body of http-log that is read, in bytes. A body with
// nothing but ids is much smaller; one entry with all its fields takes some kilobytes.
const maxHTTPLog = 1 << 20

// httpLog checks a request to HTTPLogPath: Kong's http-log plugin on the Admin
// API's route, for a Kong that cannot load this project's plugin. The secret is
// the password of Basic authentication; the user name does not matter. The body
// is one log entry or an array of them. Nothing is read of an entry but its
// request_id, and an entry without one asks for a poll.
func (h *handler) httpLog(r *request) ([]string, error) {
	if r.signed() {
		if !h.fits(HTTPLogPath, r.secrets, func(list []string) bool { return authenticated(list, r.Request) }) {
			return nil, errPassword
		}
		if err := h.limit(r.limiter); err != nil {
			return nil, err
		}
	}
	defer h.bodies.begin(r.w)()
	ids, anonymous, err := readHTTPLog(r.body)
	if err != nil {
		if _, ok := errors.AsType[*jsontext.SyntacticError](err); ok || errors.Is(err, errHTTPLog) || errors.Is(err, io.EOF) { // EOF: it is empty
			return nil, errHTTPLog
		}
		return nil, readError(err)
	}
	if anonymous && len(ids) > 0 {
		h.Poll() // the tails for the other ids end once the log has shown those
	}
	return ids, nil
}

var (
	errPassword = &refusal{status: http.StatusUnauthorized, reason: "the password of Basic authentication is missing or wrong"}
	errHTTPLog  = &refusal{status: http.StatusBadRequest, reason: "body is not a JSON object or an array of objects"}
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
// whether an entry has none. It keeps nothing else.
func readHTTPLog(r io.Reader) (ids []string, anonymous bool, err error) {
	// Kong writes a request's bytes as they came, and its names as they came.
	d := jsontext.NewDecoder(r, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
	entry := func() error {
		var e struct {
			ID jsontext.Value `json:"request_id"`
		}
		if kind := d.PeekKind(); kind != jsontext.KindBeginObject && kind != jsontext.KindInvalid {
			return errHTTPLog // without this, null would decode to an entry
		}
		if err := json.UnmarshalDecode(d, &e); err != nil {
			return err
		}
		id, err := jsontext.AppendUnquote(nil, e.ID)
		if err == nil && ValidID(string(id)) {
			ids = append(ids, string(id))
		} else {
			anonymous = true
		}
		return nil
	}
	if d.PeekKind() != jsontext.KindBeginArray {
		err = entry()
	} else {
		_, err = d.ReadToken()
		for err == nil && d.PeekKind() != jsontext.KindEndArray {
			err = entry()
		}
		if err == nil {
			_, err = d.ReadToken()
		}
	}
	if err == nil {
		if _, err = d.ReadToken(); err == nil {
			err = errHTTPLog
		} else if errors.Is(err, io.EOF) {
			return ids, anonymous, nil
		}
	}
	return nil, false, err
}
