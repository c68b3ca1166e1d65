package cloudtrail

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	smithyhttp "github.com/aws/smithy-go/transport/http"
)

func FuzzParseOutput(f *testing.F) {
	f.Add([]byte(`{"successful":[{"id":"a","eventID":"b"}],"failed":[{"id":"c","errorCode":"d","errorMessage":"e"}]}`))
	f.Add([]byte(`{"successful":[{"id":"a","eventID":"b"}],"failed":[{"id":"c"`))
	f.Add([]byte(`{"failed":[{"id":null,"errorCode":7}],"successful":null}`))
	f.Add([]byte(`[{"successful":[]}]`))
	f.Add([]byte(`{"succ\u0065ssful":[{"\u0069d":"\ud83d\ude00"}]}`))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		out, err := parseOutput(string(answer))
		if err != nil {
			return
		}
		// What is believed must be JSON to any parser, and say the same to it.
		var top map[string]json.RawMessage
		if err := json.Unmarshal(answer, &top); err != nil {
			t.Fatalf("believed %q", answer)
		}
		var successful, failed []json.RawMessage
		_ = json.Unmarshal(top["successful"], &successful)
		_ = json.Unmarshal(top["failed"], &failed)
		if len(out.Successful) < len(successful) || len(out.Failed) < len(failed) {
			t.Fatalf("%d and %d of %d and %d", len(out.Successful), len(out.Failed), len(successful), len(failed))
		}
	})
}

func FuzzParseError(f *testing.F) {
	f.Add(400, "", []byte(`{"__type":"com.amazonaws#ThrottlingException:http://x","message":"m"}`))
	f.Add(403, "ExpiredTokenException:http://internal", []byte(`<html>`))
	f.Add(500, "a#b#c:d", []byte(`{"code":{"x":1},"Code":"y","Message":"\u0000\n"}`))
	f.Add(399, ":", []byte(`"`+strings.Repeat("x", 1000)+`"`))
	f.Fuzz(func(t *testing.T, status int, header string, answer []byte) {
		resp := &http.Response{StatusCode: status, Header: http.Header{"X-Amzn-Errortype": {header}}}
		e := parseError(resp, string(answer))
		for _, s := range []string{e.Code, e.Message} {
			if len(s) > maxReason || !utf8.ValidString(s) || strings.ContainsAny(s, "\n\r\x00\x1b") {
				t.Fatalf("not fit for a log: %q", s)
			}
		}
		if strings.ContainsAny(e.Code, ":") {
			t.Fatalf("code %q", e.Code)
		}
		fail := classifyAnswer(&smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: resp}, Err: e}, "http://x")
		if fail.code == "" || fail.kind == settings && fail.hint == "" {
			t.Fatalf("%+v", fail)
		}
		if fail.kind == content && (status < 400 || status > 499) {
			t.Fatalf("status %d makes a dead letter of events", status)
		}
	})
}
