package kongadmin

import (
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// previewBytes is how far from both ends of a body a preview looks.
const previewBytes = 64 << 10

// sendPreview sends a preview of a page, if a glance at its body shows one. Inside a text,
// quotes are escaped, so what looks like a member's name as a rule is one.
func sendPreview(to chan<- audit.Preview, body string) {
	tail := body[max(0, len(body)-previewBytes):]
	offset := memberIn(tail, `"offset":`)
	if offset == "" {
		offset = memberIn(body[:min(len(body), previewBytes)], `"offset":`)
	}
	last, err := strconv.ParseInt(memberIn(tail, `"request_timestamp":`), 10, 64)
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
// without escapes, else the empty string.
func memberIn(text, name string) string {
	at := strings.LastIndex(text, name)
	if at < 0 {
		return ""
	}
	value := text[at+len(name):]
	if end := strings.IndexAny(value, ",}"); end >= 0 {
		return value[:end]
	}
	return ""
}
