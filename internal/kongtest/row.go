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

// encode needs row to have been signed already. omit names fields that the release does
// not have.
func encode(row *Row, expires int64, omit []string) record {
	gone := func(name string) bool {
		_, other := row.Extra[name]
		return other || slices.Contains(row.Omit, name) || slices.Contains(omit, name)
	}
	var b []byte
	text := func(name string, v *string) {
		switch {
		case gone(name):
		case v == nil:
			b = append(appendName(b, name), "null"...)
		default:
			b = appendString(appendName(b, name), *v)
		}
	}
	text("request_id", &row.RequestID)
	text("client_ip", &row.ClientIP)
	text("method", &row.Method)
	if !gone("status") {
		b = strconv.AppendInt(appendName(b, "status"), int64(row.Status), 10)
	}
	text("workspace", row.Workspace)
	text("rbac_user_id", row.RBACUserID)
	text("rbac_user_name", row.RBACUserName)
	text("request_source", row.RequestSource)
	text("removed_from_payload", row.RemovedFromPayload)
	text("signature", row.Signature)
	text("path", &row.Path)
	text("payload", row.Payload)
	for _, name := range slices.Sorted(maps.Keys(row.Extra)) {
		b = append(append(appendString(append(b, ','), name), ':'), row.Extra[name]...)
	}
	return record{
		timestamp: row.RequestTimestamp, expires: expires, id: row.RequestID, text: string(b),
		noTime: gone("request_timestamp"), noTTL: gone("ttl"),
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
