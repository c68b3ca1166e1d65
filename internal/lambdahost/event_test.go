package lambdahost

import (
	"context"
	"log/slog"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

func FuzzParseEvent(f *testing.F) {
	for _, seed := range []string{
		`{"schedule":true}`, `{"source":"aws.events","detail-type":"Scheduled Event"}`, `{"source":"aws.scheduler","detail-type":"Scheduled Event"}`,
		`{"trigger":{"request_ids":["a"],"sent_at":"2026-01-31T12:00:00Z"}}`, `{"continue":{"kind":"tail","chain":1}}`, `{}`, `null`,
		`{"requestContext":{"http":{"method":"POST"}},"rawPath":"/v1/trigger","body":"e30=","isBase64Encoded":true,"headers":{"a b":"c"}}`,
		`{"requestContext":{"http":{"method":"P T"}},"rawPath":"//%zz?"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		e, err := parseEvent(payload)
		if err != nil {
			if len(err.Error()) > 600 {
				t.Errorf("an error of %d bytes quotes the event", len(err.Error()))
			}
			return
		}
		if (e.url == nil) != (e.kind == audit.Reconcile || e.kind == audit.Tail) {
			t.Errorf("%+v is not one thing", e)
		}
		if e.chain < 0 || e.chain > maxChain || e.trigger != nil && e.kind != audit.Tail {
			t.Errorf("%+v", e)
		}
		if e.url == nil {
			return
		}
		h := &host{urls: trigger.NewHandler(trigger.Options{Notify: func(context.Context, []string) error {
			t.Error("taken without a secret")
			return nil
		}, Logger: slog.New(slog.DiscardHandler)})}
		if answer := h.serveURL(t.Context(), e.url); answer.StatusCode < 300 {
			t.Errorf("%+v", answer)
		}
	})
}
