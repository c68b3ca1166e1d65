package kongadmin

import (
	"bytes"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// previewBytes is how far from both ends of a body a preview looks.
const previewBytes = 64 << 10

// sendPreview sends a preview of a page, if a glance at its body shows one. Inside a text,
// quotes are escaped, so what looks like a member's name as a rule is one.
func sendPreview(to chan<- audit.Preview, body []byte) {
	tail := body[max(0, len(body)-previewBytes):]
	offset := memberIn(tail, `"offset":`)
	if offset == nil {
		offset = memberIn(body[:min(len(body), previewBytes)], `"offset":`)
	}
	last, err := strconv.ParseInt(string(memberIn(tail, `"request_timestamp":`)), 10, 64)
	if err != nil {
		return
	}
	token, err := jsontext.AppendUnquote(nil, offset)
	if err != nil {
		return
	}
	select {
	case to <- audit.Preview{Offset: string(token), Last: last}:
	default:
	}
}

// memberIn returns the value of the last member of a name, if it is a number or a text
// without escapes, else nothing.
func memberIn(text []byte, name string) []byte {
	at := bytes.LastIndex(text, []byte(name))
	if at < 0 {
		return nil
	}
	value := text[at+len(name):]
	if end := bytes.IndexAny(value, ",}"); end >= 0 {
		return value[:end]
	}
	return nil
}
