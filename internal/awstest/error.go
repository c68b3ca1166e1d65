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

func (e *Error) Error() string { return e.Code + ": " + e.Message }

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

// ErrorsIn says where an error answer carries its code. AWS uses both places.
type ErrorsIn int

// Places.
const (
	BodyAndHeader ErrorsIn = iota
	Body                   // "__type":"com.amazonaws…#Code"
	Header                 // X-Amzn-ErrorType: Code:http://…
)

// Protocol is how a service writes its answers.
type Protocol struct {
	ContentType string
	Namespace   string // of its errors
}

// Write answers a call.
func (p Protocol) Write(w http.ResponseWriter, status int, answer any) {
	b, err := json.Marshal(answer)
	if err != nil { // maps and strings always encode
		panic(err)
	}
	p.WriteText(w, status, b)
}

// WriteText answers a call with a text that is there already.
func (p Protocol) WriteText(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", p.ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text) // a client that has gone needs no answer
}

// WriteError answers a call with its refusal.
func (p Protocol) WriteError(w http.ResponseWriter, e *Error, in ErrorsIn) {
	body := map[string]string{"message": e.Message}
	if in != Body {
		w.Header().Set("X-Amzn-ErrorType", e.Code+":http://internal.amazon.com/coral/"+p.Namespace+"/")
	}
	if in != Header {
		body["__type"] = p.Namespace + "#" + e.Code
	}
	p.Write(w, e.Status, body)
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

// Find returns the credential by which a request was signed.
func (c *Credentials) Find(keyID, sessionToken string, now time.Time) (Credential, *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.list, func(k Credential) bool { return k.AccessKeyID == keyID })
	switch {
	case i < 0, c.list[i].SessionToken != sessionToken:
		return Credential{}, Refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
	case !c.list[i].Expires.IsZero() && !now.Before(c.list[i].Expires):
		return Credential{}, Refuse("ExpiredTokenException", "The security token included in the request is expired")
	}
	return c.list[i], nil
}
