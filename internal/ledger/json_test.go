package ledger

import (
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// TestUndeliveredInvalidUTF8 keeps an entry of odd bytes: an error here would keep
// its outcome from being recorded.
func TestUndeliveredInvalidUTF8(t *testing.T) {
	r := record("a", noon, audit.Dead)
	r.Undelivered.Entry.Payload = "a\xffb"
	text := value(encodeUndelivered(&r))(t)
	u := value(decodeUndelivered("a", text))(t)
	equal(t, u.Entry.Payload, "a\ufffdb")
}
