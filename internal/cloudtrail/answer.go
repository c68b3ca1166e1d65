package cloudtrail

import (
	"errors"
	"net/http"
	"strings"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/restjson"
	"github.com/aws/smithy-go"
	"github.com/tidwall/gjson"
)

// errNoAnswer is a 200 that does not say what became of the events.
var errNoAnswer = errors.New("the answer is not one of PutAuditEvents")

// parseOutput reads the body of a 200. Anything but a complete answer is an
// error: what it says of some events must not be believed then.
func parseOutput(answer []byte) (*PutAuditEventsOutput, error) {
	text := string(answer) // everything in the output is a part of it
	if !gjson.Valid(text) {
		return nil, errNoAnswer
	}
	out := PutAuditEventsOutput{Successful: make([]AuditEventResultEntry, 0, min(strings.Count(text, `"eventID"`), maxEvents))}
	var strs stringsOf
	known, bad := false, false
	gjson.Parse(text).ForEach(func(key, list gjson.Result) bool {
		accepted := key.Str == "successful"
		if !accepted && key.Str != "failed" {
			return true
		}
		if list.Type == gjson.Null {
			return true
		}
		if !list.IsArray() {
			bad = true
			return false
		}
		known = true
		list.ForEach(func(_, entry gjson.Result) bool {
			if !entry.IsObject() {
				bad = true
				return false
			}
			if accepted {
				out.Successful = append(out.Successful, parseAccepted(entry, &strs))
			} else {
				out.Failed = append(out.Failed, parseFailed(entry, &strs))
			}
			return true
		})
		return !bad
	})
	if bad || !known {
		return nil, errNoAnswer
	}
	return &out, nil
}

func parseAccepted(entry gjson.Result, strs *stringsOf) (e AuditEventResultEntry) {
	entry.ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "id":
			e.Id = strs.pointer(value)
		case "eventID":
			e.EventID = strs.pointer(value)
		}
		return true
	})
	return e
}

func parseFailed(entry gjson.Result, strs *stringsOf) (e ResultErrorEntry) {
	entry.ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "id":
			e.Id = strs.pointer(value)
		case "errorCode":
			e.ErrorCode = strs.pointer(value)
		case "errorMessage":
			e.ErrorMessage = strs.pointer(value)
		}
		return true
	})
	return e
}

// stringsOf allocates the strings of an answer many at a time.
type stringsOf struct{ free []string }

func (s *stringsOf) pointer(v gjson.Result) *string {
	if v.Type != gjson.String {
		return nil
	}
	if len(s.free) == 0 {
		s.free = make([]string, 64)
	}
	p := &s.free[0]
	s.free = s.free[1:]
	*p = v.Str
	return p
}

// parseError reads an answer that is not a 200. It takes the code from the
// header or the body, without the namespace before it and the URI after it.
func parseError(resp *http.Response, answer []byte) *smithy.GenericAPIError {
	e := &smithy.GenericAPIError{Fault: smithy.FaultClient}
	if resp.StatusCode >= 500 {
		e.Fault = smithy.FaultServer
	}
	code := resp.Header.Get("X-Amzn-ErrorType")
	if text := string(answer); gjson.Valid(text) {
		body := gjson.Parse(text)
		first := func(names ...string) string {
			for _, n := range names {
				if v := body.Get(n); v.Type == gjson.String && v.Str != "" {
					return v.Str
				}
			}
			return ""
		}
		if code == "" {
			code = first("__type", "code", "Code")
		}
		e.Message = clean(first("message", "Message", "errorMessage"))
	}
	e.Code = clean(restjson.SanitizeErrorCode(strings.TrimSpace(code)))
	return e
}

// maxReason bounds what is kept of a message, in bytes.
const maxReason = 256

// clean makes a text of the service fit for a log line: short, one line, printable.
func clean(s string) string {
	s = prefix(s, maxReason, valueWidth)
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
