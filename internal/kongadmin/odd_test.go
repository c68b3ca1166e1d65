package kongadmin

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func compressed(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	say(z, s)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A proxy may compress what nobody asked to be compressed, and a rewriting one may
// put a byte order mark before it.
func TestOddEncodings(t *testing.T) {
	whole := `{"data":[{"request_id":"a","path":"/"}],"next":null}`
	for name, c := range map[string]struct {
		encoding, body, want string // want is part of the error
	}{
		"gzip":                    {"gzip", compressed(t, whole), ""},
		"x-gzip":                  {"X-GZIP", compressed(t, whole), ""},
		"gzip that is not named":  {"", compressed(t, whole), ""},
		"gzip that is only named": {"gzip", whole, ""},
		"identity":                {"identity", whole, ""},
		"BOM":                     {"", "\uFEFF" + whole, ""},
		"gzip of a BOM":           {"gzip", compressed(t, "\uFEFF"+whole), ""},
		"gzip that breaks off":    {"gzip", compressed(t, whole)[:40], "broke off"},
		"gzip of half a page":     {"gzip", compressed(t, whole[:30]), "breaks off"},
		"brotli":                  {"br", "\x0b\x02\x80", "Content-Encoding"},
		"two BOMs":                {"", "\uFEFF\uFEFF" + whole, "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", c.encoding)
				say(w, c.body)
			})
			client := newClient(t, Options{URL: s.URL, Retries: 1})
			if c.want != "" {
				if err := refused(t, client, all); !strings.Contains(err.Error(), c.want) {
					t.Error(err)
				}
				return
			}
			if page, err := client.Page(t.Context(), all); err != nil || len(page.Entries) != 1 {
				t.Errorf("%d entries, %v", len(page.Entries), err)
			}
		})
	}
}

// A few bytes that decompress to more than a page may have are a page too large.
func TestGzipBomb(t *testing.T) {
	bomb := compressed(t, strings.Repeat(" ", 10<<20)+emptyPage)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { say(w, bomb) })
	if err := refused(t, newClient(t, Options{URL: s.URL}), all); !errors.Is(err, audit.ErrPageTooLarge) {
		t.Error(err)
	}
}

// What a release without filters answers depends on the query, and on nothing else.
func TestUnsupportedQuery(t *testing.T) {
	const strict = `{"code":7,"fields":{"after":"unknown field"},"message":"invalid option (after: unknown field)","name":"invalid options"}`
	var (
		after     = audit.Query{Size: 1, After: 5}
		ascending = audit.Query{Size: 1, Ascending: true}
		offset    = audit.Query{Size: 1, After: 5, Ascending: true, Offset: "x"}
		none      = errors.New("none of them")
	)
	for _, c := range []struct {
		body string
		q    audit.Query
		want error
	}{
		{strict, after, audit.ErrUnsupportedQuery},
		{strict, audit.Query{Size: 1}, none},
		{`{"message":"unknown parameter sort_by"}`, ascending, audit.ErrUnsupportedQuery},
		{`{"fields":{"sort_desc":"unknown field"}}`, ascending, audit.ErrUnsupportedQuery},
		{`{"fields":{"sort_desc":"unknown field"}}`, offset, audit.ErrUnsupportedQuery},
		{`{"message":"Bad Request"}`, after, audit.ErrUnsupportedQuery},
		{`{"message":"invalid offset"}`, offset, audit.ErrBadOffset},
		{`{"message":"size must be an integer between 1 and 1000"}`, after, none},
		{`<title>400 The plain HTTP request was sent to HTTPS port</title>`, after, none},
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			say(w, c.body)
		})
		err := refused(t, newClient(t, Options{URL: s.URL}), c.q)
		for _, kind := range []error{audit.ErrUnsupportedQuery, audit.ErrBadOffset} {
			if is, want := errors.Is(err, kind), errors.Is(c.want, kind); is != want || is && audit.NeedsPerson(err) {
				t.Errorf("%s to %+v: %v", c.body, c.q, err)
			}
		}
		if errors.Is(c.want, none) && !audit.NeedsPerson(err) {
			t.Errorf("%s to %+v is for a person: %v", c.body, c.q, err)
		}
	}
}

// Connections that were idle while the process may have been frozen are not used again.
func TestIdleConnections(t *testing.T) {
	seen := map[string]bool{}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen[r.RemoteAddr] = true
		say(w, emptyPage)
	})
	c := newClient(t, Options{URL: s.URL})
	ask := func(connections int) {
		t.Helper()
		if _, err := c.Page(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		if len(seen) != connections {
			t.Errorf("%d connections, want %d", len(seen), connections)
		}
	}
	ask(1)
	ask(1)
	c.used = c.used.Add(-2 * maxUnused) // a clock that went on while the process did not
	ask(2)
	c.used = c.used.Add(2 * maxUnused) // or was set back
	ask(3)
	ask(3)
}
