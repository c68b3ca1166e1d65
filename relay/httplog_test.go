package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// TestHTTPLog sends what Kong's http-log plugin sends, with the password that is
// set for it and with another.
func TestHTTPLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	_, url, _ := w.serve("RELAY_HTTP_LOG_SECRET=the password of http-log")
	send := func(password string) int {
		id := adminRequest(t, w)
		req, err := http.NewRequest(http.MethodPost, url+trigger.HTTPLogPath, strings.NewReader(`[{"request_id":"`+id+`"}]`))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("kong", password)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := send("another"); got != http.StatusUnauthorized {
		t.Errorf("another password: %d", got)
	}
	if got := send("the password of http-log"); got != http.StatusAccepted {
		t.Fatalf("the password: %d", got)
	}
	eventually(t, patient, "both entries delivered", func() bool { return len(w.lost()) == 0 })
}
