package kongtest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Row is a row of the audit log. A nil pointer is shown as null.
type Row struct {
	RequestID          string // 32 of [0-9A-Za-z]; empty in some releases before 3.4
	RequestTimestamp   int64  // Unix seconds
	ClientIP           string
	Method             string
	Path               string // with its query
	Status             int
	TTL                *int64 // seconds left; see [Server.Add]
	Workspace          *string
	Payload            *string
	RemovedFromPayload *string
	Signature          *string
	RBACUserID         *string
	RBACUserName       *string
	RequestSource      *string

	// Extra holds fields that no release has yet, as JSON. A name that Kong knows
	// replaces Kong's value, so that a test can send a status that is a string.
	Extra map[string]jsontext.Value
	// Omit names fields that are left out altogether.
	Omit []string
}

// parts is a row, encoded. What differs in nearly every row is apart from what
// many rows have in common, so that the store keeps the latter once. Every field
// in it begins with a comma.
type parts struct {
	common, own        []byte
	noID, noTime, noLT bool
}

// encode needs row to have been signed already. omit names fields that the
// release does not have.
func (p *parts) encode(row *Row, omit []string) {
	p.common, p.own = p.common[:0], p.own[:0]
	gone := func(name string) bool {
		if _, ok := row.Extra[name]; ok {
			return true
		}
		return slices.Contains(row.Omit, name) || slices.Contains(omit, name)
	}
	text := func(dst *[]byte, name string, v *string) {
		switch {
		case gone(name):
		case v == nil:
			*dst = append(appendName(*dst, name), "null"...)
		default:
			*dst = appendString(appendName(*dst, name), *v)
		}
	}
	p.noID, p.noTime, p.noLT = gone("request_id"), gone("request_timestamp"), gone("ttl")
	text(&p.common, "client_ip", &row.ClientIP)
	text(&p.common, "method", &row.Method)
	if !gone("status") {
		p.common = strconv.AppendInt(appendName(p.common, "status"), int64(row.Status), 10)
	}
	text(&p.common, "workspace", row.Workspace)
	text(&p.common, "rbac_user_id", row.RBACUserID)
	text(&p.common, "rbac_user_name", row.RBACUserName)
	text(&p.common, "request_source", row.RequestSource)
	text(&p.common, "removed_from_payload", row.RemovedFromPayload)
	if row.Signature == nil {
		text(&p.common, "signature", nil)
	} else {
		text(&p.own, "signature", row.Signature)
	}
	text(&p.own, "path", &row.Path)
	if row.Payload == nil {
		text(&p.common, "payload", nil)
	} else {
		text(&p.own, "payload", row.Payload)
	}
	for _, name := range slices.Sorted(maps.Keys(row.Extra)) {
		p.own = append(p.own, ',')
		p.own = append(appendString(p.own, name), ':')
		p.own = append(p.own, row.Extra[name]...)
	}
}

func appendName(dst []byte, name string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	return append(dst, '"', ':')
}

// appendString appends s as a JSON string. Like Lua's encoder it passes on bytes
// beyond ASCII as they are, valid UTF-8 or not.
func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c != 0x7f {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, c)
		}
	}
	return append(append(dst, s[start:]...), '"')
}

// anyBytes takes texts that are not UTF-8, as Kong does.
var anyBytes = jsontext.AllowInvalidUTF8(true)

// decodeRow is the inverse of encoding. The row has been encoded by this package,
// so an error means that a test put something into Extra that is not JSON.
func decodeRow(b []byte) (Row, error) {
	var (
		row    Row
		fields map[string]jsontext.Value
	)
	if err := json.Unmarshal(b, &fields, anyBytes); err != nil {
		return row, fmt.Errorf("decoding row: %w", err)
	}
	for _, f := range []struct {
		name string
		dst  any
	}{
		{"request_id", &row.RequestID},
		{"request_timestamp", &row.RequestTimestamp},
		{"client_ip", &row.ClientIP},
		{"method", &row.Method},
		{"path", &row.Path},
		{"status", &row.Status},
		{"ttl", &row.TTL},
		{"workspace", &row.Workspace},
		{"payload", &row.Payload},
		{"removed_from_payload", &row.RemovedFromPayload},
		{"signature", &row.Signature},
		{"rbac_user_id", &row.RBACUserID},
		{"rbac_user_name", &row.RBACUserName},
		{"request_source", &row.RequestSource},
	} {
		v, ok := fields[f.name]
		if !ok {
			row.Omit = append(row.Omit, f.name)
			continue
		}
		// A value of another type came from Extra, and stays there.
		if err := json.Unmarshal(v, f.dst, anyBytes); err == nil {
			delete(fields, f.name)
		}
	}
	for name, v := range fields {
		if row.Extra == nil {
			row.Extra = map[string]jsontext.Value{}
		}
		row.Extra[name] = bytes.Clone(v)
	}
	return row, nil
}

// sign gives the row a signature if the options ask for one and it has none.
func sign(o *Options, row *Row) {
	if o.SigningKey == nil || row.Signature != nil {
		return
	}
	sum := sha256.Sum256(signedText(row, o.SignTimestamp, o.Omit))
	b, err := rsa.SignPKCS1v15(rand.Reader, o.SigningKey, crypto.SHA256, sum[:])
	if err != nil {
		panic(err) // the test's key is too short
	}
	s := base64.StdEncoding.EncodeToString(b)
	row.Signature = &s
}

// signedText joins the values of the row's non-null fields in the order of their
// names. Kong probably signs before it sets the timestamp: hence both forms.
func signedText(row *Row, timestamp bool, omit []string) []byte {
	fields := map[string]string{
		"request_id": row.RequestID,
		"client_ip":  row.ClientIP,
		"method":     row.Method,
		"path":       row.Path,
		"status":     strconv.Itoa(row.Status),
	}
	if timestamp {
		fields["request_timestamp"] = strconv.FormatInt(row.RequestTimestamp, 10)
	}
	for name, v := range map[string]*string{
		"workspace": row.Workspace, "payload": row.Payload, "removed_from_payload": row.RemovedFromPayload,
		"rbac_user_id": row.RBACUserID, "rbac_user_name": row.RBACUserName, "request_source": row.RequestSource,
	} {
		if v != nil {
			fields[name] = *v
		}
	}
	for name, v := range row.Extra {
		var s string
		switch {
		case name == "ttl", name == "expire", name == "signature", name == "request_timestamp" && !timestamp:
			continue
		case bytes.Equal(bytes.TrimSpace(v), []byte("null")):
			delete(fields, name)
			continue
		case json.Unmarshal(v, &s) != nil:
			s = string(v) // numbers in decimal
		}
		fields[name] = s
	}
	for _, name := range slices.Concat(row.Omit, omit) {
		if _, ok := row.Extra[name]; !ok {
			delete(fields, name)
		}
	}
	values := make([]string, 0, len(fields))
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		values = append(values, fields[name])
	}
	return []byte(strings.Join(values, "|"))
}
