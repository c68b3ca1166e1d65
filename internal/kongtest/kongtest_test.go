package kongtest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// envelope is a page as a client sees it.
type envelope struct {
	Data   []map[string]any `json:"data"`
	Next   *string          `json:"next"`
	Offset *string          `json:"offset"`
}

func (e envelope) ids() []string {
	var ids []string
	for _, row := range e.Data {
		ids = append(ids, row["request_id"].(string))
	}
	return ids
}

// get asks the server without a network.
func get(t *testing.T, h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	return do(t, h, http.MethodGet, target, "", header...)
}

func do(t *testing.T, h http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	var b io.Reader
	if body != "" {
		b = strings.NewReader(body)
	}
	r := httptest.NewRequestWithContext(t.Context(), method, target, b)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func getPage(t *testing.T, h http.Handler, query url.Values) envelope {
	t.Helper()
	w := get(t, h, auditPath+"?"+query.Encode())
	if w.Code != http.StatusOK {
		t.Fatalf("GET %s?%s: status %d: %s", auditPath, query.Encode(), w.Code, w.Body)
	}
	if got, want := w.Header().Get("Content-Length"), fmt.Sprint(w.Body.Len()); got != want {
		t.Fatalf("Content-Length = %s, body has %s bytes", got, want)
	}
	var e envelope
	if err := json.Unmarshal(w.Body.Bytes(), &e, anyBytes); err != nil {
		t.Fatalf("decoding page: %v", err)
	}
	return e
}

// walk reads page after page, repeating the query with each offset.
func walk(t *testing.T, h http.Handler, query url.Values) (ids []string, pages int) {
	t.Helper()
	query = url.Values(http.Header(query).Clone())
	for {
		e := getPage(t, h, query)
		pages++
		ids = append(ids, e.ids()...)
		if e.Offset == nil {
			if e.Next != nil {
				t.Fatalf("last page: next = %q, want null", *e.Next)
			}
			return ids, pages
		}
		if pages > 10_000 {
			t.Fatal("walk does not end")
		}
		query.Set("offset", *e.Offset)
	}
}

// clock is a clock that stands still until it is told to move.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

var noon = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

// quiet returns options of a server at noon whose pages leave no rows.
func quiet() Options { return Options{SkipReads: true, Now: (&clock{noon}).Now} }

// rows makes rows a second apart, the last of them at noon.
func rows(n int) []auditlog.Row {
	var rows []auditlog.Row
	for i := range n {
		rows = append(rows, auditlog.Row{
			RequestID:        fmt.Sprintf("%032d", (i*7919)%100_003), // not in the order of time
			RequestTimestamp: noon.Unix() - int64(n-1-i),
			ClientIP:         "10.0.0.1", Method: "GET", Path: "/services", Status: 200,
		})
	}
	return rows
}

func idsOf(rows []auditlog.Row) []string {
	var ids []string
	for _, r := range rows {
		ids = append(ids, r.RequestID)
	}
	return ids
}

func reversed(ids []string) []string {
	ids = slices.Clone(ids)
	slices.Reverse(ids)
	return ids
}

func sorted(ids []string) []string {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return ids
}

func serverWith(o Options, rows ...auditlog.Row) *Server {
	s := New(o)
	s.Add(rows...)
	return s
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %d ids, want %d: first difference at %d", what, len(got), len(want), firstDifference(got, want))
	}
}

func firstDifference(a, b []string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
