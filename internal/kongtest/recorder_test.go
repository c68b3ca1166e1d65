package kongtest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/go-json-experiment/json"
)

func write(t *testing.T, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Error(err)
	}
}

func TestRecorder(t *testing.T) {
	pr, pw := io.Pipe()
	var seen atomic.Pointer[http.Header]
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(new(r.Header.Clone()))
		w.Header().Set("Server", "kong/3.9.3")
		w.Header().Set("X-Upstream", "yes")
		switch r.URL.Path {
		case "/echo":
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			w.WriteHeader(http.StatusCreated)
			write(t, w, b)
		case "/stream":
			write(t, w, []byte("first"))
			w.(http.Flusher).Flush()
			b, err := io.ReadAll(pr)
			if err != nil {
				t.Error(err)
			}
			write(t, w, b)
		case "/refuse":
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	defer upstream.Close()
	s, err := NewRecorder(upstream.URL, Options{Now: quiet().Now, Token: "t0ken"})
	if err != nil {
		t.Fatal(err)
	}
	u := start(t, s)
	c := client(t)
	send := func(method, path, contentType string, body io.Reader) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, u+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Kong-Admin-Token", "t0ken")
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	finish := func(res *http.Response) string {
		t.Helper()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	rowOf := func(res *http.Response) (found row) {
		t.Helper()
		ids := res.Header.Values(requestIDHeader)
		if len(ids) != 1 {
			t.Fatalf("%d ids in the answer", len(ids))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := s.Await(ctx, func() bool {
			for _, row := range all(t, s) {
				if row.RequestID == ids[0] {
					found = row
					return true
				}
			}
			return false
		})
		if err != nil {
			t.Fatalf("no row for %s: %v", ids[0], err)
		}
		return found
	}

	// The body goes through whole; the row has what Enterprise would keep of it.
	body := `{"password":"x","name":"a"}`
	res := send("POST", "/echo?a=%ff", "application/json", strings.NewReader(body))
	if got := finish(res); got != body || res.StatusCode != 201 || res.Header.Get("X-Upstream") != "yes" {
		t.Errorf("status %d, body %q", res.StatusCode, got)
	}
	if got := res.Header.Values("Server"); len(got) != 1 || got[0] != "kong/3.9.1.1-enterprise-edition" {
		t.Errorf("Server = %q", got)
	}
	if got := res.Header.Values("Date"); len(got) != 1 {
		t.Errorf("Date = %q", got)
	}
	if seen.Load().Get("Kong-Admin-Token") != "" {
		t.Error("the token went upstream")
	}
	row := rowOf(res)
	if row.Method != "POST" || row.Path != "/echo?a=%ff" || row.Status != 201 || row.ClientIP != "127.0.0.1" ||
		text(row.Payload) != `{"name":"a"}` || text(row.RemovedFromPayload) != "password" || text(row.RBACUserName) != "admin" {
		t.Errorf("row %+v", row)
	}

	// Too large to be recorded, and still passed on.
	large := bytes.Repeat([]byte("x"), maxPayload+1)
	res = send("POST", "/echo", "application/json", bytes.NewReader(large))
	if got := finish(res); got != string(large) {
		t.Errorf("%d bytes came back, want %d", len(got), len(large))
	}
	if row := rowOf(res); row.Payload != nil {
		t.Errorf("payload of %d bytes", len(*row.Payload))
	}
	res = send("POST", "/echo", "text/plain", strings.NewReader("secret"))
	if finish(res); rowOf(res).Payload != nil {
		t.Error("plain text was recorded")
	}

	// The answer streams: its beginning is there while the end is not.
	res = send("GET", "/stream", "", nil)
	b := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != "first" {
		t.Errorf("beginning = %q: %v", b, err)
	}
	write(t, pw, []byte("second"))
	pw.CloseWithError(nil)
	if got := finish(res); got != "second" {
		t.Errorf("end = %q", got)
	}

	// The audit log is the recorder's own.
	res = send("GET", auditPath+"?size=1", "", nil)
	var e envelope
	if err := json.Unmarshal([]byte(finish(res)), &e, anyBytes); err != nil || len(e.Data) != 1 {
		t.Errorf("page: %v", err)
	}
	res = send("GET", "/refuse", "", nil)
	if finish(res); rowOf(res).Status != 400 {
		t.Error("refusal not recorded")
	}
	upstream.Close()
	res = send("GET", "/services", "", nil)
	if got := finish(res); res.StatusCode != 502 || !strings.Contains(got, "message") || rowOf(res).Status != 502 {
		t.Errorf("upstream down: status %d, body %q", res.StatusCode, got)
	}

	for _, bad := range []string{"", "kong:8001", "ftp://kong", "http://", ":"} {
		if _, err := NewRecorder(bad, Options{}); err == nil {
			t.Errorf("NewRecorder(%q) did not fail", bad)
		}
	}
}

// A body that breaks off is not a payload, and nothing is passed on.
func TestHalfAPayload(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("half a body was passed on") }))
	defer upstream.Close()
	s, err := NewRecorder(upstream.URL, quiet())
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/services", io.MultiReader(strings.NewReader(`{"a":`), iotest.ErrReader(io.ErrUnexpectedEOF)))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, r); w.Code != http.StatusBadRequest {
		t.Errorf("status %d", w.Code)
	}
	if row := last(t, s); row.Payload != nil {
		t.Errorf("payload %s", *row.Payload)
	}
}

// What a request changes is recorded from Kong's own answers.
func TestRecorderObjects(t *testing.T) {
	kong := New(Options{AuditOff: true})
	s, err := NewRecorder(start(t, kong), Options{SkipReads: true})
	if err != nil {
		t.Fatal(err)
	}
	u, c := start(t, s), client(t)
	for _, r := range []struct{ method, path, body string }{
		{"POST", "/services", `{"name":"orders","host":"a"}`},
		{"PUT", "/services/orders/routes/r", `{"paths":["/a"]}`},
		{"PUT", "/routes/r", `{"paths":["/b"],"service":{"name":"orders"}}`},
		{"PATCH", "/routes/r/service", `{"host":"b"}`}, // the emulated Kong has no such path
		{"PATCH", "/services/orders", `{"host":"b"}`},
		{"PATCH", "/services/nowhere", `{"host":"b"}`},
		{"POST", "/services", `{"name":"orders"}`}, // refused
		{"GET", "/services/orders", ""},
		{"POST", "/routes/r/plugins", `{"name":"session","config":{"secret":"x"}}`},
		{"DELETE", "/routes/r", ""},
		{"DELETE", "/routes/r", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), r.method, u+r.path, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	if err := s.Await(t.Context(), func() bool { return s.Len() == 11 }); err != nil {
		t.Fatal(err)
	}
	truth := map[string]int{}
	for _, c := range kong.World().Changes() {
		truth[c.Operation+" "+c.DAO+" "+c.Key]++
	}
	for _, o := range getObjects(t, s, "").Data {
		truth[o.Operation+" "+o.DAOName+" "+o.EntityKey]--
		if o.Operation == "update" && o.DAOName == "services" && !strings.Contains(o.Entity, `"host":"b"`) || strings.Contains(o.Entity, "secret") {
			t.Errorf("%+v", o)
		}
	}
	for change, n := range truth {
		if n != 0 {
			t.Errorf("%s: %d more in truth", change, n)
		}
	}
	if len(truth) != 7 {
		t.Errorf("%v", truth)
	}
}
