package kongadmin

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// verifySignature checks a row's signature: RSA PKCS #1 v1.5 over SHA-256 of the values of
// the row's fields that are not null, in the order of their names, joined by
// "|", without signature, ttl and expire (Kong's documentation of
// audit_log_signing_key). Whether request_timestamp is part of it is not
// certain: Kong signs before it sets one, so the form without it is tried first.
func verifySignature(key *rsa.PublicKey, row string) audit.Verification {
	values, signature := map[string]string{}, ""
	err := members(row, func(name, value string, null bool) {
		switch {
		case null:
		case name == "signature":
			signature = value
		case name == "ttl" || name == "expire":
		default:
			values[name] = value
		}
	})
	if err != nil {
		return audit.VerificationFailed
	}
	if signature == "" {
		return audit.Unsigned
	}
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return audit.VerificationFailed
	}
	matches := func() bool {
		var signed []string
		for _, name := range slices.Sorted(maps.Keys(values)) {
			signed = append(signed, values[name])
		}
		sum := sha256.Sum256([]byte(strings.Join(signed, "|")))
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) == nil
	}
	timestamp, timed := values["request_timestamp"]
	delete(values, "request_timestamp")
	if matches() {
		return audit.Verified
	}
	values["request_timestamp"] = timestamp
	if timed && matches() {
		return audit.VerifiedWithTimestamp
	}
	return audit.VerificationFailed
}
