package cloudtrailtest

import (
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
)

// ErrorsIn says where an error answer carries its code. AWS uses both places.
type ErrorsIn int

// Places.
const (
	BodyAndHeader ErrorsIn = iota
	Body                   // "__type":"com.amazonaws…#Code"
	Header                 // X-Amzn-ErrorType: Code:http://…
)

// apiError is the refusal of a whole call.
type apiError struct {
	status  int
	code    string
	message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func refuse(code, message string) *apiError {
	return &apiError{statusOf(code), code, message}
}

// invalid is how AWS refuses what breaks a constraint of its model.
func invalid(message string) *apiError {
	return refuse("ValidationException", "1 validation error detected: "+message)
}

// statusOf is the HTTP status of an error code: 400 unless it is one of AWS's common ones.
func statusOf(code string) int {
	switch code {
	case "InternalFailure", "InternalServerError", "InternalServerException":
		return http.StatusInternalServerError
	case "ServiceUnavailable", "ServiceUnavailableException":
		return http.StatusServiceUnavailable
	case "AccessDeniedException", "ExpiredTokenException", "IncompleteSignatureException",
		"InvalidSignatureException", "MissingAuthenticationTokenException", "OptInRequired",
		"SignatureDoesNotMatch", "UnrecognizedClientException", "InvalidClientTokenId":
		return http.StatusForbidden
	case "UnknownOperationException":
		return http.StatusNotFound
	}
	return http.StatusBadRequest
}

// protocol is how one of the two services writes its answers.
type protocol struct {
	contentType string
	namespace   string
}

var (
	dataProtocol  = protocol{"application/json", "com.amazonaws.cloudtraildata"}
	queryProtocol = protocol{"application/x-amz-json-1.1", "com.amazonaws.cloudtrail.v20131101"}
)

func (s *Server) writeError(w http.ResponseWriter, p protocol, e *apiError) {
	h := w.Header()
	h.Set("Content-Type", p.contentType)
	body := map[string]string{"message": e.message}
	if s.o.ErrorsIn != Body {
		h.Set("X-Amzn-ErrorType", e.code+":http://internal.amazon.com/coral/"+p.namespace+"/")
	}
	if s.o.ErrorsIn != Header {
		body["__type"] = p.namespace + "#" + e.code
	}
	b, err := json.Marshal(body)
	if err != nil { // a map of strings always encodes
		panic(err)
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(e.status)
	_, _ = w.Write(b) // a client that has gone needs no answer
}
