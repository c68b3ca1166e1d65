package kongtest

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"
)

// What proxies, caches and neighbours do to an Admin API.

func TestGzip(t *testing.T) {
	o := quiet()
	s := serverWith(o, rows(3)...)
	want := get(t, s, auditPath).Body.String()

	s.Update(func(o *Options) { o.Gzip = true })
	w := get(t, s, auditPath)
	z, err := gzip.NewReader(w.Body)
	if err != nil || w.Header().Get("Content-Encoding") != "gzip" {
		t.Fatalf("Content-Encoding %q, %v", w.Header().Get("Content-Encoding"), err)
	}
	if got, err := io.ReadAll(z); err != nil || string(got) != want {
		t.Errorf("%v: %.100s", err, got)
	}

	s.Inject(Fault{Truncate: true})
	if _, b, err := fetch(t, client(t), start(t, s)+auditPath); !errors.Is(err, io.ErrUnexpectedEOF) || len(b) == 0 {
		t.Errorf("a page that is cut: %d bytes, error %v", len(b), err)
	}
}

func TestDateOffset(t *testing.T) {
	o := quiet()
	o.DateOffset = 24 * time.Hour
	s := serverWith(o)
	w := get(t, s, "/services")
	if date, err := http.ParseTime(w.Header().Get("Date")); err != nil || !date.Equal(noon.Add(24*time.Hour)) {
		t.Errorf("Date %v, %v", date, err)
	}
	if row := last(t, s); row.RequestTimestamp != noon.Unix() {
		t.Errorf("%+v", row)
	}
}
