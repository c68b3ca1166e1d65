package kongtest

import (
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What proxies, caches and neighbours do to an Admin API.

func TestEncodings(t *testing.T) {
	o := quiet()
	s := serverWith(o, rows(3)...)
	want := get(t, s, auditPath).Body.String()

	s.Update(func(o *Options) { o.Encoding = Gzip })
	w := get(t, s, auditPath)
	z, err := gzip.NewReader(w.Body)
	if err != nil || w.Header().Get("Content-Encoding") != "gzip" {
		t.Fatalf("Content-Encoding %q, %v", w.Header().Get("Content-Encoding"), err)
	}
	if got, err := io.ReadAll(z); err != nil || string(got) != want {
		t.Errorf("%v: %.100s", err, got)
	}

	s.Update(func(o *Options) { o.Encoding = BOM })
	if got, ok := strings.CutPrefix(get(t, s, auditPath).Body.String(), "\uFEFF"); !ok || got != want {
		t.Errorf("%.100s", got)
	}
}

func TestStrict(t *testing.T) {
	o := quiet()
	o.Strict = true
	s := serverWith(o, rows(3)...)
	for _, order := range []Order{Filtered, NewestFirst, Unordered} {
		s.Update(func(o *Options) { o.Order = order })
		for _, query := range []string{"after=5", "before=9999999999", "sort_by=request_timestamp", "sort_desc=false"} {
			w := get(t, s, auditPath+"?size=10&"+query)
			name, _, _ := strings.Cut(query, "=")
			if want := order == Filtered; (w.Code == http.StatusOK) != want || !want && !strings.Contains(w.Body.String(), name) {
				t.Errorf("order %d, %s: %d %s", order, query, w.Code, w.Body)
			}
		}
		if w := get(t, s, auditPath+"?size=10"); w.Code != http.StatusOK {
			t.Errorf("order %d: %d", order, w.Code)
		}
	}
}

// Two nodes of a rolling upgrade take turns, each with its own abilities.
func TestNodesDiffer(t *testing.T) {
	o := quiet()
	o.Nodes = []Node{{Hostname: "new"}, {Hostname: "exclusive", Differs: func(o *Options) { o.AfterExclusive = true }},
		{Hostname: "old", Differs: func(o *Options) { o.Order, o.Strict = Unordered, true }}}
	s := serverWith(o, Row{RequestID: "a", RequestTimestamp: noon.Unix()})
	at := auditPath + "?after=" + strconv.FormatInt(noon.Unix(), 10)
	for i, want := range []struct{ status, rows int }{{200, 1}, {200, 0}, {400, 0}} {
		w := get(t, s.Node(i), at)
		if w.Code != want.status || strings.Count(w.Body.String(), "request_id") != want.rows {
			t.Errorf("node %d: %d %s", i, w.Code, w.Body)
		}
	}
}

func TestReplace(t *testing.T) {
	s, other := serverWith(quiet(), rows(3)...), New(quiet())
	s.Replace(other)
	if n := len(getPage(t, s, nil).Data); n != 0 || other.Stats().Pages != 1 {
		t.Errorf("%d rows", n)
	}
	s.Replace(nil)
	if n := len(getPage(t, s, nil).Data); n != 3 {
		t.Errorf("%d rows", n)
	}
	s.Inject(Empty(false), Empty(true))
	for _, want := range []string{`"data":[]`, `"data":{}`} {
		if w := get(t, s, auditPath); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

func TestHeaders(t *testing.T) {
	o := quiet()
	o.DateOffset, o.CachedHeaders = 24*time.Hour, true
	s := serverWith(o)
	first := get(t, s, "/services")
	id := first.Header().Get(requestIDHeader)
	for range 2 {
		w := get(t, s, auditPath)
		if got := w.Header().Get(requestIDHeader); got != id {
			t.Errorf("id %s, want %s", got, id)
		}
		if date, err := http.ParseTime(w.Header().Get("Date")); err != nil || !date.Equal(noon.Add(24*time.Hour)) {
			t.Errorf("Date %v, %v", date, err)
		}
	}
	for row := range s.All() {
		if row.RequestID != id || row.RequestTimestamp != noon.Unix() {
			t.Errorf("%+v", row)
		}
	}
}

// Kong's own certificate is no certificate for any name that crypto/tls knows.
func TestDefaultCertificate(t *testing.T) {
	s := New(Options{DefaultCertificate: true})
	address, err := s.StartTLS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	var leaf *x509.Certificate
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyConnection: func(c tls.ConnectionState) error {
		leaf = c.PeerCertificates[0]
		return nil
	}}}
	t.Cleanup(transport.CloseIdleConnections)
	if res, _, err := fetch(t, &http.Client{Transport: transport}, address+auditPath); err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	var name x509.HostnameError
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "localhost"}); !errors.As(err, &name) || leaf.Subject.CommonName != "localhost" {
		t.Error(err)
	}
}
