package cloudwatchtest

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

func get(t *testing.T, url string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

const hostile = `<script>alert("x")</script>'"&`

// serve listens, and returns the address.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL
}

// event makes an event of the relay's, with other fields than usual.
func event(uid string, change map[string]any) string {
	e := map[string]any{
		"UID": uid, "eventName": "GET/event-hooks", "eventTime": noon.Format(time.RFC3339), "sourceIPAddress": "172.31.76.246",
		"userIdentity":        map[string]any{"principalId": "p", "details": map[string]any{"rbac_user_name": "ann"}},
		"additionalEventData": map[string]any{"status": 200},
	}
	maps.Copy(e, change)
	text, err := json.Marshal(e)
	if err != nil {
		panic(err) // maps and strings always encode
	}
	return string(text)
}

func hostileEvent() string {
	return event(hostile, map[string]any{
		"eventName": hostile, "userIdentity": map[string]any{"principalId": hostile, "details": map[string]any{"rbac_user_name": hostile}},
		"additionalEventData": map[string]any{"status": hostile},
	})
}

func TestPage(t *testing.T) {
	s := fixed(Options{Now: func() time.Time { return noon.Add(600 * time.Millisecond) }})
	base := serve(t, s)
	if _, body, _ := get(t, base+"/"); !strings.Contains(body, "Nothing has arrived yet") {
		t.Error("the empty page says nothing")
	}
	put(t, s, sent{event("plain", nil), at(0)}, sent{hostileEvent(), at(0)})
	put(t, s, sent{event("plain", nil), at(0)})
	put(t, s)
	put(t, s, sent{`{"metadata":{"uid":"ocsf"},"time":1772366400000,"api":{"operation":"POST /services"},"status_code":"201","src_endpoint":{"ip":"10.0.0.1"}}`, at(0)})

	status, body, header := get(t, base+"/")
	for _, want := range []string{
		"GET/event-hooks", "172.31.76.246", ">ann<", ">200<", "0.6 s", "2026-03-01 12:00:00", `<a href="/events/1">plain</a>`,
		`<span class="tag">repeat</span>`, `data-count="Events">4<`, `data-count="Repeats">1<`, `data-count="Refused">1<`,
		"InvalidParameterException 1", Group, "&lt;script&gt;", "POST /services", ">201<", "10.0.0.1", `<a href="/events/4">ocsf</a>`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if status != 200 || strings.Contains(body, "<script>alert") || strings.Contains(body, "http://") || strings.Contains(body, "https://") {
		t.Errorf("status %d, or the page holds what an event brought, or loads from elsewhere", status)
	}
	if csp := header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q", csp)
	}
	for _, file := range []string{"/page.css", "/page.js"} {
		if status, _, h := get(t, base+file); status != 200 || !strings.HasPrefix(h.Get("Content-Type"), "text/") {
			t.Errorf("%s: %d %s", file, status, h.Get("Content-Type"))
		}
	}
	for _, path := range []string{"/other", "/events/0", "/events/5", "/events/x", "/page.html"} {
		if status, _, _ := get(t, base+path); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
	status, body, header = get(t, base+"/events/2")
	var d map[string]any
	if err := json.Unmarshal([]byte(body), &d); err != nil || status != 200 || d["UID"] != hostile || header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("detail: %d %v", status, err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", base+"/events/2", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if text := string(whole); err != nil || !strings.Contains(text, `<a href="/">all events</a>`) || !strings.Contains(text, "&#34;UID&#34;") || strings.Contains(text, "<script>") {
		t.Errorf("the event's page: %v\n%s", err, text)
	}
	if _, body, _ := get(t, serve(t, fixed(Options{Lean: true}))); !strings.Contains(body, "counted only") {
		t.Error("the page does not say that events are only counted")
	}
}

func TestLatest(t *testing.T) {
	s := fixed(Options{})
	base := serve(t, s)
	put(t, s, sent{event("before", nil), at(0)})
	put(t, s, sent{hostileEvent(), at(0)})
	_, body, _ := get(t, base+"/latest?after=1")
	var n news
	if err := json.Unmarshal([]byte(body), &n); err != nil || n.Last != 2 || n.Counts.Events != 2 ||
		!strings.Contains(n.Rows, "&lt;script&gt;") || strings.Contains(n.Rows, "<script") || strings.Contains(n.Rows, "before") {
		t.Errorf("latest: %+v, %v", n, err)
	}
}

func TestDelayText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		640 * time.Millisecond: "0.6 s", -300 * time.Millisecond: "-0.3 s", 90 * time.Second: "2 min", 3 * time.Hour: "3 h", 72 * time.Hour: "3 days",
	} {
		if got := delay(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}
