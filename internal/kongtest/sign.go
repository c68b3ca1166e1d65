package kongtest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
)

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
