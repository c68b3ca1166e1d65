package main

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/lambdahost"
)

// An id that Kong never records does not hold an environment for long, and is
// counted once it is missing.
func TestLambdaIDThatNeverShowsUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	l := newFakeLambda(w, time.Minute)
	l.result(scheduleEvent)
	book := w.ledger()
	if err := book.Announce(t.Context(), []string{"old"}, time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	e := l.invoke(triggerEvent("never"))
	if e.failed || e.took > 30*time.Second || !strings.Contains(string(e.answer), `"outcome":"left"`) {
		t.Errorf("after %s: %s", e.took, e.answer)
	}
	if queued := l.queued(); len(queued) != 0 {
		t.Errorf("the function has invoked itself: %v", queued)
	}
	l.stop()
	if lines := l.emf(); lines[len(lines)-1]["AnnouncedMissing"] != 1 {
		t.Errorf("metrics: %v", lines)
	}
}

// A Kong that does not answer is a failure, not progress.
func TestLambdaHungKong(t *testing.T) {
	t.Parallel()
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(hung.Close)
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.without("KONG_ADMIN_API")
	l := newFakeLambda(w, 6*time.Second, "KONG_ADMIN_API="+hung.URL)
	for _, event := range []string{scheduleEvent, triggerEvent("a")} {
		if _, message := l.fault(event); !strings.Contains(message, "nothing was read") || !strings.Contains(message, "What to do: ") {
			t.Errorf("%s: %s", event, message)
		}
	}
	if queued := l.queued(); len(queued) != 0 {
		t.Errorf("the function has invoked itself: %v", queued)
	}
	l.stop()
	hung.CloseClientConnections()
}

// A service without a route is named, with what to do.
func TestLambdaWithoutARoute(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	w.kong.Add(row("one", time.Now()))
	for name, c := range map[string]struct {
		without string
		env     []string
		want    string
	}{
		"Secrets Manager": {"KONG_ADMIN_TOKEN", []string{
			"KONG_ADMIN_TOKEN_SECRET_ARN=arn:aws:secretsmanager:eu-central-1:123456789012:secret:kong-AbCdEf",
			"AWS_ENDPOINT_URL_SECRETS_MANAGER=http://127.0.0.1:1",
		}, "reaching Secrets Manager"},
		"CloudTrail": {"AWS_ENDPOINT_URL_CLOUDTRAIL_DATA", []string{"AWS_ENDPOINT_URL_CLOUDTRAIL_DATA=http://127.0.0.1:1", "RELAY_RETRY_FOR=2s"}, "CloudTrail"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := *w
			w.tb = t
			w.without(c.without)
			l := newFakeLambda(&w, 30*time.Second, append(c.env, "RELAY_SOURCE="+strings.ReplaceAll(name, " ", "-"))...)
			_, message := l.fault(scheduleEvent)
			if !strings.Contains(message, c.want) || !strings.Contains(message, "NAT") {
				t.Error(message)
			}
			l.stop()
		})
	}
}

// Kong's http-log plugin can send to the function's URL as well.
func TestLambdaURLHTTPLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	l := newFakeLambda(w, 30*time.Second, "RELAY_HTTP_LOG_SECRET=password")
	l.result(scheduleEvent)
	id := adminRequest(t, w)
	for password, want := range map[string]string{"password": `"statusCode":202`, "wrong": `"statusCode":401`} {
		event := urlEvent(t, "msg_1", `[{"request_id":"`+id+`"},{}]`, testWebhookSecret, func(e map[string]any) {
			e["rawPath"] = "/v1/http-log"
			e["headers"] = map[string]string{"authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte("kong:"+password))}
		})
		if e := l.invoke(event); e.failed || !strings.Contains(string(e.answer), want) {
			t.Errorf("%s: %s", password, e.answer)
		}
	}
	results := l.drain()
	if len(results) != 2 || results[0].Outcome == lambdahost.Continued { // one for the id, one for the entry without one
		t.Errorf("%+v", results)
	}
	w.expectAll(0)
	l.stop()
}
