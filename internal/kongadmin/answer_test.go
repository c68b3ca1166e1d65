package kongadmin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/echo"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		kind    string // content type
		body    string
		message string
		hint    string // part of it; "" is not for a person to act on
		tries   int64
	}{
		"401":         {401, "application/json", `{"message":"Invalid RBAC credentials"}`, "401 Unauthorized: Invalid RBAC credentials", "does not know this token", 2},
		"403":         {403, "application/json", `{"message":"relay, you do not have permissions to read this resource"}`, "403 Forbidden: relay, you", "/audit/requests", 1},
		"404":         {404, "application/json", `{"message":"Not found"}`, "404 Not Found: Not found", "audit_log is off on this node", 1},
		"400":         {400, "application/json", `{"message":"invalid size"}`, "400 Bad Request: invalid size", "--page-size", 1},
		"405":         {405, "text/plain", "no\n", "405 Method Not Allowed: no", "Kong refused the query", 1},
		"407":         {407, "text/html", "<title>Proxy says\n no</title>", "Proxy says no", "asks for user and password", 1},
		"429":         {429, "application/json", `{"message":"API rate limit exceeded"}`, "429 Too Many Requests: API rate", "", 3},
		"408":         {408, "", "", "408 Request Timeout", "", 3},
		"500":         {500, "application/json", `{"message":"An unexpected error occurred"}`, "500 Internal Server Error: An unexpected", "", 3},
		"502":         {502, "text/html", "<html><title>502 Bad Gateway</title></html>", "502 Bad Gateway: 502", "", 3},
		"503":         {503, "text/plain; charset=utf-8", "upstream connect error", "503 Service Unavailable: upstream connect error", "", 3},
		"599":         {599, "", "", "599", "", 3},
		"204":         {204, "", "", "204 No Content", "", 1},
		"206":         {206, "application/json", emptyPage, "206 Partial Content", "", 1},
		"404 HTML":    {404, "text/html", "<html><body>no title</body></html>", "404 Not Found", "audit_log", 1},
		"JSON list":   {403, "application/json", `["message"]`, "403 Forbidden", "role", 1},
		"JSON cut":    {403, "application/json", `{"message":"half`, "403 Forbidden", "role", 1},
		"object":      {403, "application/json", `{"message":{"a":1}}`, `403 Forbidden: {"a":1}`, "role", 1},
		"lines":       {403, "application/json", `{"message":"a\r\n\tb\u001b[31m"}`, "403 Forbidden: a b\uFFFD[31m", "role", 1},
		"bad bytes":   {403, "application/json", "{\"message\":\"a\xff\"}", "403 Forbidden: a\uFFFD", "role", 1},
		"token":       {403, "application/json", `{"message":"who is ` + secret + `?"}`, "403 Forbidden: (withheld", "role", 1},
		"token, text": {403, "text/plain", "Kong-Admin-Token: " + secret, "403 Forbidden: (withheld", "role", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				w.Header().Set("Content-Type", c.kind)
				w.WriteHeader(c.status)
				say(w, c.body)
			})
			client := newClient(t, Options{URL: s.URL, Token: token(secret), Retries: 2})
			err := refused(t, client, all)
			if !strings.Contains(err.Error(), c.message) {
				t.Errorf("%q, want %q", err, c.message)
			}
			if h := hint(err); !strings.Contains(h, c.hint) || (h == "") != (c.hint == "") {
				t.Errorf("hint %q, want %q", h, c.hint)
			}
			if n := asked.Load(); n != c.tries {
				t.Errorf("%d attempts, want %d", n, c.tries)
			}
		})
	}
}

func TestLongMessage(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(100<<20)) // and never sent
		w.WriteHeader(403)
		say(w, `<title>`+strings.Repeat("é", 40<<10))
	})
	if err := refused(t, newClient(t, Options{URL: s.URL}), all); len(err.Error()) > 400 || !strings.Contains(err.Error(), "é…") || hint(err) == "" {
		t.Errorf("%d bytes, hint %q", len(err.Error()), hint(err))
	}
}

func TestEmulatedRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		options kongtest.Options
		hint    string
	}{
		"audit log off": {kongtest.Options{AuditOff: true, Token: secret}, "audit_log is off on this node"},
		"forbidden":     {kongtest.Options{Users: []kongtest.User{{Name: "relay", ID: "id", Token: secret, Forbidden: true}}}, "role with read on /audit/requests"},
	} {
		t.Run(name, func(t *testing.T) {
			k, u := kong(t, c.options)
			if err := refused(t, newClient(t, Options{URL: u, Token: token(secret)}), all); !strings.Contains(hint(err), c.hint) {
				t.Errorf("%v, hint %q", err, hint(err))
			}
			if n := k.Stats().Requests; n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestBadOffset(t *testing.T) {
	k, u := kong(t, kongtest.Options{}, rows(5)...)
	c := newClient(t, Options{URL: u})
	err := refused(t, c, audit.Query{Size: 2, Offset: "no offset"})
	if !errors.Is(err, audit.ErrBadOffset) || hint(err) != "" || !strings.Contains(err.Error(), "not a valid offset") {
		t.Error(err)
	}
	err = refused(t, c, audit.Query{Size: 5000})
	if errors.Is(err, audit.ErrBadOffset) || !strings.Contains(hint(err), "--page-size") {
		t.Errorf("%v, hint %q", err, hint(err))
	}
	if n := k.Stats().Requests; n != 2 {
		t.Errorf("%d requests", n)
	}
}

// If an answer is not a page, or only part of one, the page is asked for again. If that does not
// help, the error says so.
func TestNoPage(t *testing.T) {
	whole := `{"data":[{"request_id":"a","path":"/"}],"next":null}`
	raw := func(head, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"+head+"\r\n\r\n"+body)
		}
	}
	body := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { say(w, s) }
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"content length short": {raw("Content-Length: 1000", whole), "broke off after 52 bytes"},
		"content length zero":  {raw("Content-Length: 0", ""), "answer is empty"},
		"length too small":     {raw("Content-Length: 40\r\nConnection: close", whole), "breaks off"},
		"chunk broken":         {raw("Transfer-Encoding: chunked", "34\r\n"+whole+"\r\n"), "broke off after 52 bytes"},
		"chunk size broken":    {raw("Transfer-Encoding: chunked", "34\r\n"+whole+"\r\nzz\r\n"), "broke off after 52 bytes"},
		"no length, cut":       {raw("Connection: close", whole[:30]), "JSON that breaks off or is malformed (30 bytes)"},
		"connection cut":       {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		"no HTTP":              {func(w http.ResponseWriter, _ *http.Request) { hijack(w, "SSH-2.0-OpenSSH\r\n") }, "malformed HTTP response"},
		"truncated JSON":       {body(whole[:len(whole)-1]), "breaks off"},
		"in a string":          {body(`{"data":[{"request_id":"a`), "breaks off"},
		"something follows":    {body(whole + "{}"), "malformed"},
		"HTML":                 {body("\n<!DOCTYPE html><html><body>log in</body></html>"), "answer is HTML, not JSON"},
		"text":                 {body("ok"), "answer is not JSON"},
		"blank":                {body(" \n"), "answer is empty"},
		"no data":              {body(`{"next":null}`), "without a list called data"},
		"other object":         {body(`{"message":"hello","Data":[]}`), "without a list called data"},
		"data null":            {body(`{"data":null}`), "data is not a list"},
		"data object":          {body(`{"data":{"request_id":"a"}}`), "data is not a list"},
		"data string":          {body(`{"data":"[]"}`), "data is not a list"},
		"data number":          {body(`{"data":0}`), "data is not a list"},
		"data false":           {body(`{"data":false}`), "data is not a list"},
		"list":                 {body(`[]`), "without a list called data"},
		"null":                 {body(`null`), "without a list called data"},
		"string":               {body(`"data"`), "without a list called data"},
		"row null":             {body(`{"data":[null]}`), "row 0 of data is not an object"},
		"row list":             {body(`{"data":[{},[]]}`), "row 1 of data is not an object"},
		"row string":           {body(`{"data":["a",{}]}`), "row 0 of data is not an object"},
		"data twice":           {body(`{"data":[{}],"data":[]}`), "data comes twice"},
		"offset twice":         {body(`{"data":[],"offset":"a","offset":null}`), "offset comes twice"},
		"offset object":        {body(`{"data":[],"offset":{}}`), "offset is no text"},
		"next list":            {body(`{"data":[],"next":[]}`), "next is no text"},
		"next without offset":  {body(`{"data":[],"next":"/audit/requests?size=5"}`), "next page but no offset"},
		"next is no URL":       {body(`{"data":[],"next":"%zz"}`), "next page but no offset"},
		"too deep":             {body(`{"data":[],"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`), "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			var recovers atomic.Bool
			var asked atomic.Int64
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1)%2 == 0 && recovers.Load() {
					say(w, whole)
					return
				}
				c.answer(w, r)
			})
			client := newClient(t, Options{URL: s.URL, Token: token(secret), Retries: 2})
			err := refused(t, client, all)
			if !strings.Contains(err.Error(), c.want) || hint(err) != "" {
				t.Errorf("%v, want %q", err, c.want)
			}
			if asked.Load() < 3 || retries(client) != 2 {
				t.Errorf("asked %d times, %d retries", asked.Load(), retries(client))
			}
			recovers.Store(true)
			if page, err := client.Page(t.Context(), all); err != nil || len(page.Entries) != 1 {
				t.Errorf("then a good one: %d entries, %v", len(page.Entries), err)
			}
		})
	}
}

// hijack sends just these bytes and closes the connection.
func hijack(w http.ResponseWriter, s string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	say(conn, s)
}

func TestEmulatedFaultsHeal(t *testing.T) {
	k, u := kong(t, kongtest.Options{SkipReads: true}, rows(50)...)
	c := newClient(t, Options{URL: u})
	for _, f := range []kongtest.Fault{
		{Truncate: true}, {Reset: true}, {Status: 500}, {Status: 503, RetryAfter: 1e9}, {Status: 429}, kongtest.HTML(), kongtest.NoData(),
		{Content: `{"data":`}, {Content: emptyPage, Truncate: true},
	} {
		k.Inject(f, f)
		before := k.Stats().Faulty
		page, err := c.Page(t.Context(), all)
		if err != nil || len(page.Entries) != 50 {
			t.Errorf("%+v: %d entries, %v", f, len(page.Entries), err)
		}
		if n := k.Stats().Faulty - before; n != 2 {
			t.Errorf("%+v came %d times", f, n)
		}
	}
}

func TestPageTooLarge(t *testing.T) {
	large := strings.Repeat("x", 10<<20)
	_, u := kong(t, kongtest.Options{}, auditlog.Row{RequestID: "large", RequestTimestamp: rows(1)[0].RequestTimestamp, Payload: &large})
	c := newClient(t, Options{URL: u})
	for _, size := range []int{2, 1000} {
		if err := refused(t, c, audit.Query{Size: size, Ascending: true}); !errors.Is(err, audit.ErrPageTooLarge) || hint(err) != "" {
			t.Error(err)
		}
	}
	if n := retries(c); n != 0 {
		t.Errorf("%d retries", n)
	}
	page, err := c.Page(t.Context(), audit.Query{Size: 1, Ascending: true})
	if err != nil || len(page.Entries) != 1 || page.Entries[0].Payload != large {
		t.Fatalf("one row of 10 MiB: %d entries, %v", len(page.Entries), err)
	}
}

func TestPageTooLargeUnannounced(t *testing.T) {
	page := `{"data":[{"payload":"` + strings.Repeat("x", 60_000) + `"}]}`
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		say(w, page[:10])
		w.(http.Flusher).Flush() // from here on it is chunked
		say(w, page[10:])
	})
	for _, c := range []struct {
		max      int
		tooLarge bool
	}{{len(page), false}, {len(page) - 1, true}} {
		client := newClient(t, Options{URL: s.URL, MaxBytes: c.max})
		got, err := client.Page(t.Context(), all)
		if errors.Is(err, audit.ErrPageTooLarge) != c.tooLarge || (err == nil) == c.tooLarge || (err == nil && got.Bytes != len(page)) {
			t.Errorf("%d bytes: %v", c.max, err)
		}
		if n := retries(client); n != 0 {
			t.Errorf("%d retries", n)
		}
	}
}

func FuzzErrorAnswers(f *testing.F) {
	for _, status := range []int{200, 204, 301, 400, 401, 403, 404, 429, 500, 503} {
		f.Add(status, "application/json", `{"message":"no","code":7}`, "x", 3)
		f.Add(status, "text/html", "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title>", "", 1000)
		f.Add(status, "text/plain", "who is "+secret+"?", "", 1)
	}
	f.Add(200, "", `{"data":[{}]}`, "", 5)
	c, err := New(Options{URL: "http://kong", Token: token(secret), MaxBytes: 1 << 10})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, kind, body, offset string, size int) {
		resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}}, ContentLength: -1, Body: io.NopCloser(strings.NewReader(body))}
		page, _, err := c.decode(resp, requestLog, audit.Query{Size: size, Offset: offset}, echo.Secrets{secret})
		if status != 200 && err == nil {
			t.Fatalf("%d is a page of %d entries", status, len(page.Entries))
		}
		if err == nil {
			return
		}
		err = c.explain(t.Context(), requestLog, err)
		if text := fmt.Sprintf("%v %+v %s", err, err, hint(err)); strings.Contains(text, secret) || strings.ContainsAny(text, "\n\r\x1b") || len(text) > 3000 {
			t.Errorf("%d bytes: %.300q", len(text), text)
		}
		if status != 200 && errors.Is(err, audit.ErrPageTooLarge) {
			t.Error("a refusal is no page that is too large")
		}
		if errors.Is(err, audit.ErrBadOffset) && (status != 400 || offset == "") {
			t.Errorf("%d is no bad offset", status)
		}
		if s := hint(err) != ""; s != (status >= 300 && status < 500 && status != 429 && status != 408 && !errors.Is(err, audit.ErrBadOffset)) {
			t.Errorf("%d for a person to act on: %v", status, s)
		}
	})
}

// Who answers in Kong's place is said, and what it says is not taken for Kong's.
func TestWhoAnswersIsSaid(t *testing.T) {
	const html = "<html><body><h1>503 Service Unavailable</h1></body></html>"
	for name, c := range map[string]struct {
		server, contentType, body string
		status                    int
		said, hint                string
	}{
		"a load balancer":              {"awselb/2.0", "text/html", html, 503, "said by awselb/2.0", "awselb/2.0, which stands before Kong"},
		"a load balancer with no name": {"", "text/html", html, 503, "said by something without a name", "which stands before Kong"},
		"Kong":                         {"kong/3.10.0.2", "application/json", `{"message":"down"}`, 503, "503", "Kong's error log"},
		"Kong without a name":          {"", "application/json", `{"message":"down"}`, 503, "503", "Kong's error log"},
		"Kong without a licence":       {"kong/3.10.0.2", "application/json", `{"message":"Enterprise license missing or expired"}`, 403, "license", "KONG_LICENSE_DATA"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.contentType)
				if c.server != "" {
					w.Header().Set("Server", c.server)
				}
				w.WriteHeader(c.status)
				say(w, c.body)
			})
			err := refused(t, newClient(t, Options{URL: s.URL}), all)
			if !strings.Contains(err.Error(), c.said) || !strings.Contains(audit.Hint(err), c.hint) {
				t.Errorf("%v, hint %q", err, audit.Hint(err))
			}
		})
	}
}

// If the time for a page ends between two attempts, what the last answer said takes precedence over
// the time.
func TestDeadlineKeepsTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Options{
			URL: "http://kong", Retries: 1e6, Timeout: 300 * time.Millisecond, RetryWait: [2]time.Duration{10 * time.Millisecond, 10 * time.Millisecond},
		})
		c.http.Transport = unavailable("nginx/1.25.3")
		err := refused(t, c, all)
		if h := audit.Hint(err); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(h, "nginx/1.25.3, which stands before Kong") {
			t.Errorf("%v, hint %q", err, h)
		}
	})
}

// TestLargeRowIsNotKept reads a row of 40 MiB and then small pages: the memory of the
// first body is not theirs.
func TestLargeRowIsNotKept(t *testing.T) {
	large := atomic.Bool{}
	large.Store(true)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		payload := "x"
		if large.Load() {
			payload = strings.Repeat("x", 40<<20)
		}
		say(w, `{"data":[{"request_id":"a","path":"/","payload":"`+payload+`"}],"next":null}`)
	})
	client := newClient(t, Options{URL: s.URL})
	for i := range 20 {
		page, err := client.Page(t.Context(), audit.Query{Size: 1})
		if err != nil || len(page.Entries) != 1 {
			t.Fatalf("%d entries, %v", len(page.Entries), err)
		}
		large.Store(false)
		buffer := client.bodies.Get().(*bytes.Buffer)
		if n := buffer.Cap(); n > 4*client.opts.MaxBytes {
			t.Fatalf("after page %d the next one has a buffer of %d bytes", i+1, n)
		}
		client.bodies.Put(buffer)
	}
}
