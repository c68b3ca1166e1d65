package trigger

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// FuzzBody: whatever a body that is signed well holds, only valid ids are noted.
func FuzzBody(f *testing.F) {
	for _, s := range []string{
		`{"request_ids":["a1","B2"],"sent_at":"2026-01-02T03:04:05Z"}`, `{"request_ids":[]}`, `{}`, `null`, `[`,
		`{"request_ids":["../x"]}`, "{\"request_ids\":[\"\xff\"]}", `{"request_ids":[{"a":1}]}`, `{"sent_at":1}`, strings.Repeat("[", 10000),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		noted := false
		h := NewHandler(Options{
			Secrets: only(Path, secretA),
			Notify: func(_ context.Context, ids []string) error {
				noted = true
				for _, id := range ids {
					if !ValidID(id) {
						t.Errorf("noted %q", id)
					}
				}
				return nil
			},
			Logger: slog.New(slog.DiscardHandler),
		})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, signed(t, secretA, "msg_1", time.Now(), body))
		switch {
		case w.Code == 202 && noted, (w.Code == 400 || w.Code == 413) && !noted:
		default:
			t.Errorf("%d, noted: %v", w.Code, noted)
		}
		b, err := ParseInvocation([]byte(`{"trigger":` + body + `}`))
		if err == nil && len(body) <= MaxBody && len(b.RequestIDs) > 0 && !noted {
			t.Error("an invocation takes what the handler refuses")
		}
	})
}

// FuzzHeaders: headers without a true signature never pass.
func FuzzHeaders(f *testing.F) {
	f.Add("msg_1", "1767323045", "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=", "sha1=00")
	f.Add("", "", "", "")
	f.Add("msg_1", "-9223372036854775808", "v1,", "sha256=")
	f.Add("msg.1", "9223372036854775807", "v1, v1 , ,", "=")
	f.Fuzz(func(t *testing.T, id, at, signature, kong string) {
		h := NewHandler(Options{
			Secrets: func(path string, _ bool) []string {
				return []string{map[string]string{Path: secretA, EventHookPath: secretB}[path]}
			},
			Notify: func(context.Context, []string) error {
				t.Errorf("passed: %q %q %q %q", id, at, signature, kong)
				return nil
			},
			Logger: slog.New(slog.DiscardHandler),
			Now:    func() time.Time { return time.Unix(1767323045, 0) },
		})
		for _, path := range []string{Path, EventHookPath} {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(`{"request_ids":["a"]}`))
			r.Header["Webhook-Id"] = []string{id}
			r.Header["Webhook-Timestamp"] = []string{at}
			r.Header["Webhook-Signature"] = []string{signature}
			r.Header["X-Kong-Signature"] = []string{kong}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != 401 {
				t.Errorf("%s: %d", path, w.Code)
			}
		}
	})
}
