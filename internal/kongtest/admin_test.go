package kongtest

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// row is a row of the log, as a page shows it.
type row struct {
	RequestID          string  `json:"request_id"`
	RequestTimestamp   int64   `json:"request_timestamp"`
	ClientIP           string  `json:"client_ip"`
	Method             string  `json:"method"`
	Path               string  `json:"path"`
	Status             int     `json:"status"`
	Workspace          *string `json:"workspace"`
	Payload            *string `json:"payload"`
	RemovedFromPayload *string `json:"removed_from_payload"`
	Signature          *string `json:"signature"`
	RBACUserID         *string `json:"rbac_user_id"`
	RBACUserName       *string `json:"rbac_user_name"`
}

// all returns the rows that are there, oldest first.
func all(t *testing.T, s *Server) []row {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []row
	for _, r := range s.requests.Records() {
		var one row
		if err := json.Unmarshal(r.AppendTo(nil, 0, true), &one, anyBytes); err != nil {
			t.Fatal(err)
		}
		list = append(list, one)
	}
	return list
}

// last is the row of the newest request.
func last(t *testing.T, s *Server) row {
	t.Helper()
	list := all(t, s)
	if len(list) == 0 {
		t.Fatal("no rows")
	}
	return list[len(list)-1]
}

func text(s *string) string {
	if s == nil {
		return "<nil>"
	}
	return *s
}

func TestAdminRequestsAreRecorded(t *testing.T) {
	for _, c := range []struct {
		method, target, contentType, body string
		status                            int
		payload, removed                  string
	}{
		{"GET", "/services?size=10", "", "", 200, "<nil>", "<nil>"},
		{"POST", "/services", "application/json", `{"name":"a","port":80}`, 201, `{"name":"a","port":80}`, "<nil>"},
		{"POST", "/plugins", "application/json; charset=utf-8", `{"config":{"secret":"x","n":1.50},"token":"y"}`, 201, `{"config":{"n":1.50}}`, "token,secret"},
		{"PUT", "/consumers/a", "application/json", `{"username":"<a&b>","password":"x"}`, 200, `{"username":"<a&b>"}`, "password"},
		{"PATCH", "/routes/a", "application/json", `[1,2]`, 400, `[1,2]`, "<nil>"},
		{"POST", "/services", "application/x-www-form-urlencoded", "name=a&secret=b", 201, "<nil>", "<nil>"},
		{"POST", "/services", "application/json", "not json", 400, "not json", "<nil>"},
		{"POST", "/services", "application/json", "null", 201, "null", "<nil>"},
		{"POST", "/services", "application/json", `{"x":"` + strings.Repeat("y", maxPayload) + `"}`, 201, "<nil>", "<nil>"},
		{"DELETE", "/services/a", "", "", 204, "<nil>", "<nil>"},
		{"OPTIONS", "/auth", "", "", 204, "<nil>", "<nil>"},
		{"GET", "/", "", "", 200, "<nil>", "<nil>"},
		{"GET", "/status", "", "", 200, "<nil>", "<nil>"},
		{"GET", "/services/%ff?x=%FF", "", "", 404, "<nil>", "<nil>"},
		{"POST", auditPath, "", "", 405, "<nil>", "<nil>"},
		{"GET", "/audit/objects", "", "", 200, "<nil>", "<nil>"},
		{"GET", "/audit/other", "", "", 404, "<nil>", "<nil>"},
		{"GET", auditPath + "?size=7", "", "", 200, "<nil>", "<nil>"},
	} {
		s := New(Options{Now: quiet().Now})
		w := do(t, s, c.method, c.target, c.body, "Content-Type", c.contentType)
		name := c.method + " " + c.target
		if w.Code != c.status || w.Code != 204 && !jsontext.Value(w.Body.Bytes()).IsValid() {
			t.Errorf("%s: status %d, want %d", name, w.Code, c.status)
		}
		row := last(t, s)
		if row.RequestID != w.Header().Get(requestIDHeader) || !regexp.MustCompile(`^[0-9A-Za-z]{32}$`).MatchString(row.RequestID) {
			t.Errorf("%s: id %q in the row, %q in the header", name, row.RequestID, w.Header().Get(requestIDHeader))
		}
		if row.Method != c.method || row.Path != c.target || row.Status != c.status || row.ClientIP != "192.0.2.1" ||
			row.RequestTimestamp != noon.Unix() || row.RBACUserID != nil {
			t.Errorf("%s: row %+v", name, row)
		}
		if text(row.Payload) != c.payload || text(row.RemovedFromPayload) != c.removed {
			t.Errorf("%s: payload of %d bytes, removed %s", name, len(text(row.Payload)), text(row.RemovedFromPayload))
		}
		if got := w.Header().Get("Server"); got != "kong/3.9.1.1-enterprise-edition" {
			t.Errorf("%s: Server = %q", name, got)
		}
		if got := w.Header().Get("Date"); got != "Tue, 01 Sep 2026 12:00:00 GMT" {
			t.Errorf("%s: Date = %q", name, got)
		}
	}
}

func TestRoot(t *testing.T) {
	root := func(o Options) map[string]any {
		var m map[string]any
		if err := json.Unmarshal(get(t, New(o), "/").Body.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	if m := root(Options{}); m["version"] != "3.9.1.1" || m["edition"] != "enterprise" || m["hostname"] != "kong-cp-1" ||
		m["node_id"] == "" || m["configuration"] == nil {
		t.Errorf("root = %v", m)
	}
}

func TestWhatIsNotRecorded(t *testing.T) {
	s := New(Options{SkipReads: true})
	get(t, s, auditPath+"?size=1")
	get(t, s, objectsPath)
	if s.Len() != 0 {
		t.Errorf("%d rows, want none", s.Len())
	}
	s.Update(func(o *Options) { o.AuditOff = true })
	for _, path := range []string{auditPath, objectsPath} {
		if w := get(t, s, path); w.Code != http.StatusNotFound {
			t.Errorf("%s with the log off: status %d", path, w.Code)
		}
	}
	get(t, s, "/services")
	if s.Len() != 0 {
		t.Errorf("%d rows with the log off", s.Len())
	}
	s.Update(func(o *Options) { o.AuditOff, o.LoseRows = false, 1 })
	get(t, s, "/services")
	if s.Len() != 0 {
		t.Errorf("%d rows although Kong loses them", s.Len())
	}
	s.Update(func(o *Options) { o.LoseRows = 0 })
	get(t, s, "/services")
	if s.Len() != 1 {
		t.Errorf("%d rows, want 1", s.Len())
	}
}

func TestRBAC(t *testing.T) {
	s := New(Options{Now: quiet().Now, Token: "t0ken", Users: []User{
		{Name: "audit-relay", ID: "u1", Token: "other"},
		{Name: "dev", ID: "u2", Token: "dev", Forbidden: true},
		{Name: "none"},
	}})
	for _, c := range []struct {
		path, token   string
		status        int
		message, user string
	}{
		{auditPath, "", 401, "Invalid RBAC credentials", "<nil>"},
		{auditPath, "wrong", 401, "Invalid RBAC credentials", "<nil>"},
		{"/services", "", 401, "Invalid RBAC credentials", "<nil>"},
		{auditPath, "dev", 403, "dev, you do not have permissions to read this resource", "dev"},
		{"/services", "dev", 200, "", "dev"},
		{auditPath, "other", 200, "", "audit-relay"},
		{"/", "t0ken", 200, "", "admin"},
	} {
		w := get(t, s, c.path, "Kong-Admin-Token", c.token)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.message) {
			t.Errorf("%s with %q: status %d, body %s", c.path, c.token, w.Code, w.Body)
		}
		id := w.Header().Get(requestIDHeader)
		for _, row := range all(t, s) {
			if row.RequestID == id && (row.Status != c.status || text(row.RBACUserName) != c.user) {
				t.Errorf("%s with %q: row %+v by %s", c.path, c.token, row, text(row.RBACUserName))
			}
		}
		if !slices.Contains(slices.Collect(s.IDs()), id) {
			t.Errorf("%s with %q left no row", c.path, c.token)
		}
	}
	s.Update(func(o *Options) { o.Token = "new" }) // rotated
	if w := get(t, s, auditPath, "Kong-Admin-Token", "t0ken"); w.Code != 401 {
		t.Errorf("the old token: status %d", w.Code)
	}
	if w := get(t, s, auditPath, "Kong-Admin-Token", "new"); w.Code != 200 {
		t.Errorf("the new token: status %d", w.Code)
	}
}

// Control planes take turns, each with its own clock; a row's time is that of
// its insert.
func TestNodesAndLateRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{
			SkipReads: true,
			Nodes:     []Node{{Hostname: "a"}, {Hostname: "b", Skew: -time.Minute}},
			RowDelay:  2 * time.Second,
		})
		begin := time.Now()
		for i, want := range []time.Duration{0, -time.Minute, 0, -time.Minute} {
			w := get(t, s, "/services")
			if got := w.Header().Get("Date"); got != begin.Add(want).UTC().Format(http.TimeFormat) {
				t.Errorf("request %d: Date = %q", i, got)
			}
		}
		if w := get(t, s, "/"); !strings.Contains(w.Body.String(), `"hostname":"a"`) {
			t.Errorf("root of the first node: %s", w.Body)
		}
		if s.Len() != 0 || s.LateRows() != 5 {
			t.Fatalf("%d rows, %d late; want 0, 5", s.Len(), s.LateRows())
		}
		<-time.After(3 * time.Second)
		synctest.Wait()
		var times []int64
		for _, row := range all(t, s) {
			times = append(times, row.RequestTimestamp-begin.Unix())
		}
		if want := []int64{-58, -58, 2, 2, 2}; !slices.Equal(times, want) || s.LateRows() != 0 {
			t.Errorf("timestamps = %v, want %v; %d late", times, want, s.LateRows())
		}

		// Between two bounds, by chance.
		s.Update(func(o *Options) { o.RowDelay, o.RowDelayMax = 100*time.Millisecond, 500*time.Millisecond })
		for range 50 {
			get(t, s, "/services")
		}
		<-time.After(99 * time.Millisecond)
		synctest.Wait()
		early := s.Len()
		<-time.After(200 * time.Millisecond)
		synctest.Wait()
		middle := s.Len()
		<-time.After(202 * time.Millisecond)
		synctest.Wait()
		if early != 5 || middle <= 10 || middle >= 50 || s.Len() != 55 {
			t.Errorf("rows: %d, %d, %d", early, middle, s.Len())
		}

		// Released when a test says so; Close writes what is late.
		s.Update(func(o *Options) { o.RowDelay, o.RowDelayMax = time.Hour, 0 })
		get(t, s, "/services")
		if s.Len() != 55 || s.ReleaseRows() != 1 || s.Len() != 56 || s.ReleaseRows() != 0 {
			t.Errorf("%d rows after release, want 56", s.Len())
		}
		<-time.After(2 * time.Hour) // it does not come again
		get(t, s, "/services")
		if err := s.Close(); err != nil || s.Len() != 57 {
			t.Errorf("%d rows after Close, want 57: %v", s.Len(), err)
		}
	})
}

// Readers of pages while others write: run with -race.
func TestConcurrency(t *testing.T) {
	s := serverWith(Options{RowDelay: time.Millisecond}, rows(500)...)
	u := start(t, s)
	c := client(t)
	done := make(chan error)
	const workers, each = 8, 25
	for i := range workers {
		go func() {
			for range each {
				path := []string{auditPath + "?size=100", "/services"}[i%2]
				res, err := c.Get(u + path)
				if err != nil {
					done <- err
					return
				}
				_, err = io.Copy(io.Discard, res.Body)
				if err = errors.Join(err, res.Body.Close()); err != nil {
					done <- err
					return
				}
				s.Delete("unknown")
			}
			done <- nil
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if want := 500 + workers*each; s.Len() != want {
		t.Errorf("%d rows, want %d", s.Len(), want)
	}
	got, _ := walk(t, s, url.Values{"size": {"1000"}})
	if len(got) < 500+workers*each {
		t.Errorf("walk found %d rows", len(got))
	}
}
