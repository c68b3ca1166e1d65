package awstest

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// Error is the refusal of a whole call.
type Error struct {
	Status  int
	Code    string
	Message string
}

// Refuse returns the refusal of a call, with the HTTP status that goes with its code: 400
// unless it is one of AWS's common ones.
func Refuse(code, message string) *Error {
	status := http.StatusBadRequest
	switch code {
	case "InternalFailure", "InternalServerError", "InternalServerException":
		status = http.StatusInternalServerError
	case "ServiceUnavailable", "ServiceUnavailableException":
		status = http.StatusServiceUnavailable
	case "AccessDeniedException", "ExpiredTokenException", "IncompleteSignatureException",
		"InvalidSignatureException", "MissingAuthenticationTokenException", "OptInRequired",
		"SignatureDoesNotMatch", "UnrecognizedClientException", "InvalidClientTokenId":
		status = http.StatusForbidden
	case "UnknownOperationException":
		status = http.StatusNotFound
	}
	return &Error{status, code, message}
}

// Protocol is how a service writes its answers.
type Protocol struct {
	ContentType string
	Namespace   string // of its errors
	REST        bool   // errors have their own statuses, and their code in a header as well
	Garbage     string // what it answers in place of JSON
}

// Write answers a call.
func (p Protocol) Write(w http.ResponseWriter, status int, answer any) {
	b, err := json.Marshal(answer)
	if err != nil { // maps and strings always encode
		panic(err)
	}
	p.writeText(w, status, b)
}

func (p Protocol) writeText(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", p.ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text) // a client that has gone needs no answer
}

func (p Protocol) writeError(w http.ResponseWriter, e *Error) {
	status := e.Status
	switch {
	case p.REST:
		w.Header().Set("X-Amzn-ErrorType", e.Code+":http://internal.amazon.com/coral/"+p.Namespace+"/")
	case status < http.StatusInternalServerError:
		status = http.StatusBadRequest
	}
	p.Write(w, status, map[string]string{"message": e.Message, "__type": p.Namespace + "#" + e.Code})
}

// Credential is an access key that a server knows. SessionToken is empty for a key that
// needs none; a zero Expires is never.
type Credential struct {
	AccessKeyID, SecretAccessKey, SessionToken string

	Expires time.Time
}

// Credentials are those that a server knows. They are safe for concurrent use.
type Credentials struct {
	mu   sync.Mutex
	list []Credential
}

// SetCredentials replaces the credentials that are known, as a rotation does.
func (c *Credentials) SetCredentials(list ...Credential) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = slices.Clone(list)
}
