package main

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

const testWebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="

// urlEvent is a signed request to the function's URL.
func urlEvent(t *testing.T, id, body, secret string, change func(map[string]any)) string {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signature, err := webhook.Sign(id, now, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	event := map[string]any{
		"version": "2.0", "routeKey": "$default", "rawPath": "/v1/trigger", "rawQueryString": "", "body": body, "isBase64Encoded": false,
		"headers": map[string]string{
			"content-type": "application/json", "host": "abc.lambda-url.eu-central-1.on.aws", "content-length": strconv.Itoa(len(body)),
			"webhook-id": id, "webhook-timestamp": strconv.FormatInt(now.Unix(), 10), "webhook-signature": signature,
		},
		"requestContext": map[string]any{
			"accountId": "123456789012", "domainName": "abc.lambda-url.eu-central-1.on.aws", "requestId": "r", "timeEpoch": now.UnixMilli(),
			"http": map[string]string{"method": "POST", "path": "/v1/trigger", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "x"},
		},
	}
	if change != nil {
		change(event)
	}
	text, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLambdaURL(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	l := newFakeLambda(w, 30*time.Second, "RELAY_TRIGGER_SECRET="+testWebhookSecret)
	l.result(scheduleEvent)
	status := func(event string) (int, string) {
		t.Helper()
		e := l.invoke(event)
		var out struct {
			StatusCode int               `json:"statusCode"`
			Headers    map[string]string `json:"headers"`
			Body       string            `json:"body"`
		}
		if err := json.Unmarshal(e.answer, &out); err != nil || e.failed {
			t.Fatalf("%s", e.answer)
		}
		if out.StatusCode != http.StatusNotFound && out.Headers["Content-Type"] != "application/json" {
			t.Errorf("headers are %v", out.Headers)
		}
		return out.StatusCode, out.Body
	}
	body := func(id string) string { return `{"request_ids":["` + id + `"],"sent_at":"2026-01-01T00:00:00Z"}` }
	plain, packed := adminRequest(t, w), adminRequest(t, w)
	good := urlEvent(t, "msg_1", body(plain), testWebhookSecret, nil)
	other := "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, tc := range []struct {
		name, event string
		want        int
		reason      string
	}{
		{"good", good, 202, "{}"},
		{"replayed", good, 409, "webhook-id was used before"},
		{"base64", urlEvent(t, "msg_2", body(packed), testWebhookSecret, func(e map[string]any) {
			e["isBase64Encoded"], e["body"] = true, base64.StdEncoding.EncodeToString([]byte(body(packed)))
		}), 202, "{}"},
		{"not base64", urlEvent(t, "msg_3", body(plain), testWebhookSecret, func(e map[string]any) { e["isBase64Encoded"] = true }), 400, "could not be read"},
		{"signed with another secret", urlEvent(t, "msg_4", body(plain), other, nil), 401, "signature does not match"},
		{"not signed", urlEvent(t, "msg_5", body(plain), testWebhookSecret, func(e map[string]any) { e["headers"] = map[string]string{} }), 401, "missing"},
		{"not a trigger", urlEvent(t, "msg_6", `{"ids":[]}`, testWebhookSecret, nil), 400, "body is not"},
		{"too large", urlEvent(t, "msg_7", `{"request_ids":["`+strings.Repeat("a", 70_000)+`"]}`, testWebhookSecret, nil), 413, "too large"},
		{"GET", urlEvent(t, "msg_8", body(plain), testWebhookSecret, func(e map[string]any) {
			e["requestContext"].(map[string]any)["http"] = map[string]string{"method": "GET"}
		}), 405, "POST"},
		{"another path", urlEvent(t, "msg_9", body(plain), testWebhookSecret, func(e map[string]any) { e["rawPath"] = "/" }), 404, "not found"},
		{"a trigger in the request", urlEvent(t, "msg_10", body(plain), other, func(e map[string]any) {
			e["trigger"] = map[string]any{"request_ids": []string{"x"}}
		}), 401, "signature"},
	} {
		if code, reason := status(tc.event); code != tc.want || !strings.Contains(reason, tc.reason) {
			t.Errorf("%s: answered %d %s, want %d %s", tc.name, code, reason, tc.want, tc.reason)
		}
	}
	if w.trail.Times(plain) != 0 {
		t.Error("delivered before the answer")
	}
	if results := l.drain(); len(results) != 2 {
		t.Errorf("%d invocations for two triggers", len(results))
	}
	w.expectAll(0)
	if w.trail.Times(plain) != 1 || w.trail.Times(packed) != 1 {
		t.Error("not delivered")
	}
	l.refuse = http.StatusForbidden
	if code, reason := status(urlEvent(t, "msg_11", body(plain), testWebhookSecret, nil)); code != 503 {
		t.Errorf("not passed on, and answered %d %s", code, reason)
	}
	l.stop()

	l.start() // without a secret
	if code, reason := status(urlEvent(t, "msg_12", body(plain), testWebhookSecret, nil)); code != 401 || !strings.Contains(reason, "no secret is configured") {
		t.Errorf("without a secret: answered %d %s", code, reason)
	}
}

func TestLambdaUnknownEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	l := newFakeLambda(w, 20*time.Second)
	for _, event := range []string{
		`{}`, `null`, `[]`, `"schedule"`, `{"schedule":false}`, `{"schedule":"true"}`, `{"Records":[{"eventSource":"aws:sqs","body":"hunter2"}]}`,
		`{"source":"aws.s3","detail-type":"Scheduled Event"}`, `{"source":"aws.events","detail-type":"hunter2"}`,
		`{"trigger":{}, "more":1}`, `{"trigger":{"request_ids":["hunter2!"]}}`, `{"trigger":null}`, `{"requestContext":{"elb":{}}}`,
		`{"continue":{"kind":"reconcile","chain":11}}`, `{"continue":{"kind":"reconcile","chain":0}}`, `{"continue":{"kind":"window","chain":1}}`,
	} {
		kind, message := l.fault(event)
		if kind != "UnknownEvent" || !strings.Contains(message, `expected a schedule ({"schedule":true}`) || strings.Contains(message, "hunter2") {
			t.Errorf("%s: %s %s", event, kind, message)
		}
	}
	l.result(scheduleEvent) // it goes on
	if log := l.stop(); strings.Contains(log, "hunter2") {
		t.Error("the log quotes events")
	}
}

func TestLambdaWrongSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.without("KONG_ADMIN_API", "CHANNEL_ARN")
	l := newFakeLambda(w, 20*time.Second)
	for range 2 {
		kind, message := l.fault(scheduleEvent)
		if kind != "SettingsError" || !strings.Contains(message, "KONG_ADMIN_API") || !strings.Contains(message, "CHANNEL_ARN") {
			t.Errorf("%s %s", kind, message)
		}
	}
	if log := l.stop(); !strings.Contains(log, "KONG_ADMIN_API") {
		t.Errorf("the log does not say it: %s", log)
	}
}
