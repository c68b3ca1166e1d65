package cloudtrail

import (
	"cmp"
	"errors"
	"net/http"
	"strings"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/restjson"
	"github.com/aws/smithy-go"

	"github.com/kong-cloudtrail/relay/internal/jsonscan"
)

// errNoAnswer is a 200 that does not say what became of the events.
var errNoAnswer = errors.New("the answer is not one of PutAuditEvents")

// parseOutput reads the body of a 200. Anything but a complete answer is an
// error: what it says of some events must not be believed then.
func parseOutput(answer string) (*PutAuditEventsOutput, error) {
	out := PutAuditEventsOutput{Successful: make([]AuditEventResultEntry, 0, maxEvents)}
	var strs stringsOf
	known := false
	p := jsonscan.New(answer) // everything in the output is a part of it
	for more := p.Open('{', '}'); more; more = p.More('}') {
		name := p.Name().Text()
		if name != "successful" && name != "failed" || p.Peek() == 'n' {
			p.Value()
			continue
		}
		known = true
		for more := p.Open('[', ']'); more; more = p.More(']') {
			if name == "failed" {
				out.Failed = append(out.Failed, parseFailed(&p, &strs))
			} else {
				out.Successful = append(out.Successful, parseAccepted(&p, &strs))
			}
		}
	}
	if !p.End() || !known {
		return nil, errNoAnswer
	}
	return &out, nil
}

func parseAccepted(p *jsonscan.Scanner, strs *stringsOf) (e AuditEventResultEntry) {
	for more := p.Open('{', '}'); more; more = p.More('}') {
		switch name, v := p.Name(), p.Value(); name.Text() {
		case "id":
			e.Id = strs.pointer(v)
		case "eventID":
			e.EventID = strs.pointer(v)
		}
	}
	return e
}

func parseFailed(p *jsonscan.Scanner, strs *stringsOf) (e ResultErrorEntry) {
	for more := p.Open('{', '}'); more; more = p.More('}') {
		switch name, v := p.Name(), p.Value(); name.Text() {
		case "id":
			e.Id = strs.pointer(v)
		case "errorCode":
			e.ErrorCode = strs.pointer(v)
		case "errorMessage":
			e.ErrorMessage = strs.pointer(v)
		}
	}
	return e
}

// stringsOf allocates the strings of an answer many at a time.
type stringsOf struct{ free []string }

func (s *stringsOf) pointer(v jsonscan.Value) *string {
	if v.Kind != jsonscan.Text {
		return nil
	}
	if len(s.free) == 0 {
		s.free = make([]string, 2*maxEvents)
	}
	p := &s.free[0]
	s.free = s.free[1:]
	*p = v.Text()
	return p
}

// parseError reads an answer that is not a 200. It takes the code from the
// header or the body, without the namespace before it and the URI after it.
func parseError(resp *http.Response, answer string) *smithy.GenericAPIError {
	e := &smithy.GenericAPIError{Fault: smithy.FaultClient}
	if resp.StatusCode >= 500 {
		e.Fault = smithy.FaultServer
	}
	code := resp.Header.Get("X-Amzn-ErrorType")
	said := map[string]string{}
	p := jsonscan.New(answer)
	for more := p.Open('{', '}'); more; more = p.More('}') {
		if name, v := p.Name(), p.Value(); v.Kind == jsonscan.Text {
			said[name.Text()] = v.Text()
		}
	}
	if p.End() {
		code = cmp.Or(code, said["__type"], said["code"], said["Code"])
		e.Message = clean(cmp.Or(said["message"], said["Message"], said["errorMessage"]))
	}
	e.Code = clean(restjson.SanitizeErrorCode(strings.TrimSpace(code)))
	if e.Code != "" && e.Code[0] >= 'a' && e.Code[0] <= 'z' { // what stands between may write it in its own way
		e.Code = strings.ToUpper(e.Code[:1]) + e.Code[1:]
	}
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
