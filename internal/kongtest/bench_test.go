package kongtest

import (
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// BenchmarkPage serves pages of 1000 out of a million rows, at the newest end
// and in the middle.
func BenchmarkPage(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := New(quiet())
	s.AddSeq(auditlog.Generate(1_000_000, 1, auditlog.Mix{To: noon, LargeEvery: -1}))
	runtime.GC()
	runtime.ReadMemStats(&after)
	perRow := float64(after.HeapAlloc-before.HeapAlloc) / 1e6

	_, place := s.requests.Page(auditlog.Selection{From: math.MinInt64, Until: math.MaxInt64, Size: 500_000})
	place.Skip = 0
	middle := place.Offset()
	for _, c := range []struct{ name, query string }{
		{"newest", "size=1000"},
		{"oldest", "size=1000&sort_by=request_timestamp&sort_desc=false&after=1787000000"},
		{"middle", "size=1000&offset=" + url.QueryEscape(middle)},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, auditPath+"?"+c.query, nil)
			w := &discard{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				w.n = 0
				s.ServeHTTP(w, r)
			}
			b.SetBytes(int64(w.n))
			b.ReportMetric(perRow, "B/row")
		})
	}
}

// BenchmarkAddLate inserts a row at a random time into a million.
func BenchmarkAddLate(b *testing.B) {
	s := New(quiet())
	s.AddSeq(auditlog.Generate(1_000_000, 1, auditlog.Mix{To: noon, Plain: true}))
	at := noon.Unix()
	for b.Loop() {
		at -= 7919
		if at < noon.Unix()-29*86400 {
			at += 29 * 86400
		}
		s.Add(auditlog.Row{RequestID: entities.RandomID(rand.IntN), RequestTimestamp: at, Path: "/"})
	}
}

type discard struct {
	header http.Header
	n      int
}

func (w *discard) Header() http.Header { return w.header }
func (w *discard) WriteHeader(int)     {}
func (w *discard) Write(b []byte) (int, error) {
	w.n += len(b)
	return len(b), nil
}
