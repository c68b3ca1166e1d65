package ledger

import (
	"net/url"
	"strings"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// TestUndeliveredInvalidUTF8 keeps an entry of odd bytes: an error here would keep
// its outcome from being recorded.
func TestUndeliveredInvalidUTF8(t *testing.T) {
	text, err := EncodeUndelivered(&audit.Record{ID: "a", Outcome: audit.Dead, Undelivered: &audit.Undelivered{Entry: audit.Entry{ID: "a", Payload: "a\xffb"}}})
	if err != nil {
		t.Fatal(err)
	}
	u, err := DecodeUndelivered("a", text)
	if err != nil || u.Entry.Payload != "a\ufffdb" {
		t.Errorf("payload %q, error %v", u.Entry.Payload, err)
	}
}

// TestUnreadableEntryIsNotRepeated checks that the error of a broken entry names the id and the place, and
// shows nothing of its text.
func TestUnreadableEntryIsNotRepeated(t *testing.T) {
	for _, text := range []string{
		"", `{"entry":{"pay`, `"hunter2"`, `{"hunter2":1,"hunter2":2}`, `{"entry":{"hunter2":{"a":1,"a":2}}}`, `{"entry":{"status":"hunter2"}}`,
		`{"entry":{"payload":"{"hunter2":"hunter2"}}`, `{"entry":{"payload":{"hunter2":1}}}`, `{"since":"hunter2"}`, `{"tries":hunter2}`,
	} {
		_, err := DecodeUndelivered("id-1", []byte(text))
		if !audit.IsUnreadable(err) || !strings.Contains(err.Error(), "id-1") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// FuzzAddress looks for a password that would be kept, and for two forms of one address.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"http://kong:8001", "HTTPS://u:hunter2@Kong:8444//", "kong:8001", "", "://", "http://[::1]:8001/a/?q#f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := Address(s)
		if again := Address(once); again != once {
			t.Errorf("%q becomes %q, then %q", s, once, again)
		}
		if u, err := url.Parse(s); err == nil && u.Host != "" && u.User != nil {
			if kept, err := url.Parse(once); err != nil || kept.User != nil {
				t.Errorf("%q keeps its user: %q", s, once)
			}
		}
	})
}
