package kongtest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// start serves over a real connection, for faults that only show there.
func start(t *testing.T, s *Server) string {
	t.Helper()
	u, err := s.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// fetch reads a whole answer; err is from the request or the body.
func fetch(t *testing.T, c *http.Client, target string) (*http.Response, []byte, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(r)
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(res.Body)
	return res, b, errors.Join(err, res.Body.Close())
}

func client(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestStatusFaults(t *testing.T) {
	s := serverWith(Options{Now: quiet().Now}, rows(5)...)
	for _, c := range []struct {
		fault    Fault
		status   int
		message  string
		fromKong bool
	}{
		{Fault{Status: 401}, 401, "Invalid RBAC credentials", true},
		{Fault{Status: 403}, 403, "you do not have permissions to read this resource", true},
		{Fault{Status: 404}, 404, "Not found", true},
		{Fault{Status: 500}, 500, "unexpected error", true},
		{Fault{Status: 429, RetryAfter: 2 * time.Second}, 429, "Too Many Requests", false},
		{Fault{Status: 502}, 502, "Bad Gateway", false},
		{Fault{Status: 503}, 503, "Service Unavailable", false},
		{Fault{Status: 503, Content: "<html>"}, 503, "<html>", false},
		{HTML(), 200, "<!DOCTYPE html>", false},
		{NoData(), 200, `{"next":null}`, false},
		{Fault{Content: `{"data":{}}`}, 200, `{"data":{}}`, false},
	} {
		s.Inject(c.fault)
		w := get(t, s, auditPath)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.message) {
			t.Errorf("%+v: status %d, body %s", c.fault, w.Code, w.Body)
		}
		if got := w.Header().Get(requestIDHeader) != ""; got != c.fromKong {
			t.Errorf("%+v: request id header: %v, want %v", c.fault, got, c.fromKong)
		}
		if got := w.Header().Get("Retry-After"); (got == "2") != (c.fault.RetryAfter > 0) {
			t.Errorf("%+v: Retry-After = %q", c.fault, got)
		}
	}
	// Only what Kong itself answered, with its database up, left a row.
	if got := s.Len(); got != 5+3 {
		t.Errorf("%d rows, want 8", got)
	}
	if e := getPage(t, s, nil); len(e.Data) != 8 {
		t.Errorf("page after the faults has %d rows", len(e.Data))
	}
	if st := s.Stats(); st.Pages != 12 || st.Faulty != 11 || st.Requests != 12 {
		t.Errorf("stats = %+v", st)
	}
}

func TestTruncate(t *testing.T) {
	s := serverWith(quiet(), rows(1000)...)
	u := start(t, s)
	for _, query := range []string{"size=1000", "size=1", "after=4102444800"} {
		s.Inject(Fault{Truncate: true})
		_, b, err := fetch(t, client(t), u+auditPath+"?"+query)
		if !errors.Is(err, io.ErrUnexpectedEOF) || len(b) == 0 || jsontext.Value(b).IsValid(anyBytes) {
			t.Errorf("%s: %d bytes, valid %v, error %v", query, len(b), jsontext.Value(b).IsValid(anyBytes), err)
		}
	}
	s.Inject(Fault{Truncate: true, Content: strings.Repeat("x", 1000)})
	if _, b, err := fetch(t, client(t), u+auditPath); !errors.Is(err, io.ErrUnexpectedEOF) || len(b) != 500 {
		t.Errorf("content: %d bytes, error %v", len(b), err)
	}
	if _, b, err := fetch(t, client(t), u+auditPath); err != nil || !jsontext.Value(b).IsValid(anyBytes) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestReset(t *testing.T) {
	s := serverWith(Options{}, rows(5)...)
	u := start(t, s)
	s.Inject(Fault{Reset: true})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u+auditPath, nil) // never retried by the client
	if err != nil {
		t.Fatal(err)
	}
	r.Method = http.MethodGet
	tr := &http.Transport{DisableKeepAlives: true}
	if _, err := tr.RoundTrip(r); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
		t.Errorf("error %v, want a reset", err)
	}
	if s.Len() != 5 {
		t.Errorf("%d rows: a request that got no answer left one", s.Len())
	}
	if p := s.Pages(); len(p) != 1 || p[0].Status != 0 || !p[0].Fault.Reset {
		t.Errorf("pages = %+v", p)
	}
}

func TestSlowness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := quiet()
		o.Latency = 20 * time.Millisecond
		s := serverWith(o, rows(100)...)
		took := func(f Fault) time.Duration {
			s.Inject(f)
			begin := time.Now()
			get(t, s, auditPath)
			return time.Since(begin)
		}
		for _, c := range []struct {
			fault Fault
			want  time.Duration
		}{
			{Fault{}, 20 * time.Millisecond},
			{Fault{Wait: 30 * time.Second, Status: 500}, 30*time.Second + 20*time.Millisecond},
			{Fault{Pause: time.Second}, 10*time.Second + 20*time.Millisecond},
		} {
			if got := took(c.fault); got != c.want {
				t.Errorf("%+v took %v, want %v", c.fault, got, c.want)
			}
		}
		// A client that leaves is not waited for.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		s.Inject(Fault{Wait: time.Hour})
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://kong"+auditPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		s.ServeHTTP(&sink{header: http.Header{}}, r)
		if got := time.Since(begin); got != 5*time.Second {
			t.Errorf("left after %v", got)
		}
	})
}

func TestOrderFaults(t *testing.T) {
	s := serverWith(quiet(), rows(100)...)
	want := getPage(t, s, nil).ids()
	s.Inject(Fault{Reorder: true})
	got := getPage(t, s, nil).ids()
	if slices.Equal(got, want) || !slices.Equal(sorted(got), sorted(want)) {
		t.Error("a reordered page must hold the same rows in another order")
	}
}

// The same seed gives the same faults, about as often as asked for.
func TestChances(t *testing.T) {
	run := func(seed uint64) []int {
		o := quiet()
		o.Seed = seed
		o.Chances = []Chance{{0.05, Fault{Status: 500}}, {0.05, Fault{Status: 503}}}
		s := New(o)
		var statuses []int
		for range 2000 {
			statuses = append(statuses, get(t, s, auditPath).Code)
		}
		return statuses
	}
	a, b, c := run(7), run(7), run(8)
	if !slices.Equal(a, b) {
		t.Error("one seed gave two runs")
	}
	if slices.Equal(a, c) {
		t.Error("two seeds gave one run")
	}
	count := map[int]int{}
	for _, status := range a {
		count[status]++
	}
	if count[500] < 60 || count[500] > 140 || count[503] < 60 || count[503] > 140 {
		t.Errorf("statuses = %v", count)
	}
}

// A hook may change the log between two pages, and choose the fault.
func TestOnPage(t *testing.T) {
	all := rows(30)
	var (
		s     *Server
		calls int
	)
	o := quiet()
	o.OnPage = func(r Request) Fault {
		calls++
		switch calls {
		case 2:
			s.Delete(idsOf(all[10:12])...)
			s.Add(auditlog.Row{RequestID: "inserted", RequestTimestamp: noon.Unix()})
		case 4:
			return Fault{Status: 503}
		}
		if !r.Page || r.Query.Get("size") != "10" || r.RequestID == "" {
			t.Errorf("request = %+v", r)
		}
		return Fault{}
	}
	s = serverWith(o, all...)
	got, _ := walk(t, s, url.Values{"size": {"10"}, "sort_by": {"request_timestamp"}, "sort_desc": {"false"}})
	if want := 30 - 2 + 1; len(got) != want {
		t.Errorf("%d rows, want %d", len(got), want)
	}
	if w := get(t, s, auditPath+"?size=10"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d", w.Code)
	}
}

func TestRequestsAreRemembered(t *testing.T) {
	s := serverWith(quiet(), rows(5)...)
	w := get(t, s, auditPath+"?size=3&after=7")
	get(t, s, "/services")
	p := s.Pages()
	if len(p) != 1 {
		t.Fatalf("%d pages, want 1", len(p))
	}
	want := Request{
		Time: noon, RequestID: w.Header().Get(requestIDHeader), Method: "GET", Path: auditPath, Page: true,
		Query: url.Values{"size": {"3"}, "after": {"7"}}, Status: 200, Rows: 3, Bytes: int64(w.Body.Len()),
	}
	if !reflect.DeepEqual(p[0], want) {
		t.Errorf("got  %+v\nwant %+v", p[0], want)
	}
	if r := s.Requests(); len(r) != 2 || r[1].Path != "/services" || r[1].Page {
		t.Errorf("requests = %+v", r)
	}
	for range 2*maxLog + 5 {
		s.count(Request{})
	}
	if n := len(s.Requests()); n < maxLog || n > 2*maxLog {
		t.Errorf("%d requests are remembered", n)
	}
}
