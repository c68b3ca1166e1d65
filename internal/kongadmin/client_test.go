package kongadmin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

func TestNewRefusesAddress(t *testing.T) {
	for _, u := range []string{"", "kong:8001", "/audit", "ftp://kong", "http://", "http://:8001", "http://kong:port", "://", "http://a b"} {
		_, err := New(Options{URL: u})
		if hint(err) == "" {
			t.Errorf("%q: %v", u, err)
		}
	}
}

func TestQuery(t *testing.T) {
	var got url.URL
	var header http.Header
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got, header = *r.URL, r.Header
		say(w, emptyPage)
	})
	for _, c := range []struct {
		base string
		q    audit.Query
		want string
	}{
		{"", audit.Query{Size: 1000}, "/audit/requests?size=1000"},
		{"/", audit.Query{Size: 1, After: 4102444800}, "/audit/requests?after=4102444800&size=1"},
		{"/kong-admin", audit.Query{Size: 2, Offset: "W+/=="}, "/kong-admin/audit/requests?offset=W%2B%2F%3D%3D&size=2"},
		{"/kong-admin/", audit.Query{Size: 3, Ascending: true, After: 7}, "/kong-admin/audit/requests?after=7&size=3&sort_by=request_timestamp&sort_desc=false"},
	} {
		if _, err := newClient(t, Options{URL: s.URL + c.base}).Page(t.Context(), c.q); err != nil {
			t.Fatal(err)
		}
		if got.String() != c.want {
			t.Errorf("%+v asked for %s, want %s", c.q, got.String(), c.want)
		}
		if _, ok := header[tokenHeader]; ok {
			t.Error("a token was sent though none is configured")
		}
		if a := header.Get("Accept-Encoding"); a != "identity" {
			t.Errorf("Accept-Encoding %q", a)
		}
	}
}

func TestPages(t *testing.T) {
	k, u := kong(t, kongtest.Options{SkipReads: true}, rows(25)...)
	c := newClient(t, Options{URL: u})
	var ids []string
	q := audit.Query{Size: 10, Ascending: true}
	for {
		page, err := c.Page(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		last := k.Pages()[len(k.Pages())-1]
		if page.Bytes != int(last.Bytes) || page.Date.Unix() != last.Time.Unix() || !slices.Equal(page.RequestIDs, []string{last.RequestID}) {
			t.Errorf("%d bytes at %v with ids %v, want %d, %v, %s", page.Bytes, page.Date, page.RequestIDs, last.Bytes, last.Time, last.RequestID)
		}
		for _, e := range page.Entries {
			ids = append(ids, e.ID)
			if e.KongVersion != "3.9.1.1-enterprise-edition" || e.TTL <= 0 || e.Timestamp == 0 || e.Status == 0 || e.Verification != "" {
				t.Errorf("%+v", e)
			}
		}
		if q.Offset = page.Offset; q.Offset == "" {
			break
		}
	}
	if want := slices.Collect(k.IDs()); !slices.Equal(ids, want) {
		t.Errorf("got %d ids, want %d", len(ids), len(want))
	}
	if n := retries(c); n != 0 {
		t.Errorf("%d retries", n)
	}
}

func TestToken(t *testing.T) {
	_, u := kong(t, kongtest.Options{Token: secret}, rows(1)...)
	if page, err := newClient(t, Options{URL: u, Token: token(secret)}).Page(t.Context(), all); err != nil || len(page.Entries) != 1 {
		t.Errorf("%d entries, %v", len(page.Entries), err)
	}
	for name, c := range map[string]struct {
		token func(context.Context, bool) (string, error)
		hint  string
	}{
		"none":  {nil, "KONG_SUPERADMIN=true"},
		"wrong": {token(secret + "!"), "does not know this token"},
		"empty": {token(""), "does not know this token"},
		"lines": {token(secret + "\n"), "on one line"},
	} {
		t.Run(name, func(t *testing.T) {
			client := newClient(t, Options{URL: u, Token: c.token})
			if err := refused(t, client, all); !strings.Contains(hint(err), c.hint) {
				t.Errorf("%v, hint %q", err, hint(err))
			}
			if n := retries(client); n != 0 {
				t.Errorf("%d retries", n)
			}
		})
	}
}

func TestTokenSourceFails(t *testing.T) {
	k, u := kong(t, kongtest.Options{})
	cause := audit.SettingsErrorf("allow it", "no permission to read the secret")
	err := refused(t, newClient(t, Options{URL: u, Token: func(context.Context, bool) (string, error) { return "", cause }}), all)
	if !errors.Is(err, cause) || hint(err) != "allow it" {
		t.Errorf("%v, hint %q", err, hint(err))
	}
	if n := k.Stats().Requests; n != 0 {
		t.Errorf("%d requests without a token", n)
	}
}

// A token that was rotated is picked up at the first refusal, and the read that
// was refused is known as the relay's own like any other.
func TestTokenRotated(t *testing.T) {
	k, u := kong(t, kongtest.Options{Token: secret}, rows(3)...)
	var asked []bool
	c := newClient(t, Options{URL: u, Token: func(_ context.Context, fresh bool) (string, error) {
		asked = append(asked, fresh)
		if fresh {
			return secret, nil
		}
		return "old", nil
	}})
	page, err := c.Page(t.Context(), all)
	if err != nil || len(page.Entries) != 4 { // and the refused read
		t.Fatalf("%d entries, %v", len(page.Entries), err)
	}
	if !slices.Equal(asked, []bool{false, true}) {
		t.Errorf("asked for a token: fresh %v", asked)
	}
	if want := served(k); len(want) != 2 || !slices.Equal(page.RequestIDs, want) {
		t.Errorf("own reads %v, want %v", page.RequestIDs, want)
	}
}

// served returns the ids that Kong gave to requests for a page.
func served(k *kongtest.Server) []string {
	var ids []string
	for _, r := range k.Pages() {
		ids = append(ids, r.RequestID)
	}
	return ids
}

// Every attempt that Kong answered has an id, also one whose body broke off, and
// also those of a page that never came.
func TestOwnReads(t *testing.T) {
	k, u := kong(t, kongtest.Options{}, rows(3)...)
	c := newClient(t, Options{URL: u, Retries: 3})
	k.Inject(kongtest.Fault{Status: 500}, kongtest.Fault{Truncate: true}, kongtest.NoData())
	page, err := c.Page(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	ids := served(k)
	// The answer that is not a page does not come from Kong, and has no id.
	if want := []string{ids[0], ids[1], ids[3]}; !slices.Equal(page.RequestIDs, want) {
		t.Errorf("own reads %v, want %v", page.RequestIDs, want)
	}
	if n := retries(c); n != 3 {
		t.Errorf("%d retries", n)
	}

	k.Inject(kongtest.Fault{Status: 500}, kongtest.Fault{Status: 500}, kongtest.Fault{Status: 500}, kongtest.Fault{Status: 500})
	if err := refused(t, c, all); hint(err) != "" {
		t.Errorf("a database that is down is no setting: %v", err)
	}
	if n := retries(c); n != 6 {
		t.Errorf("%d retries", n)
	}
	if page, err = c.Page(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if want := served(k)[4:]; len(want) != 5 || !slices.Equal(page.RequestIDs, want) {
		t.Errorf("own reads %v, want %v", page.RequestIDs, want)
	}
	if page, err = c.Page(t.Context(), all); err != nil || len(page.RequestIDs) != 1 {
		t.Errorf("own reads %v, %v", page.RequestIDs, err)
	}
}

// What waits for a page to come with is bounded.
func TestOwnReadsBounded(t *testing.T) {
	c := newClient(t, Options{URL: "http://kong"})
	for i := range maxOwn + 5 {
		c.noteOwn(fmt.Sprint(i))
	}
	c.noteOwn("")
	c.noteOwn(strings.Repeat("x", maxOwnID+1))
	if own := c.takeOwn(); len(own) != maxOwn || own[0] != "5" || own[maxOwn-1] != fmt.Sprint(maxOwn+4) {
		t.Errorf("%d ids from %s", len(own), own[0])
	}
}

func TestRedirectNotFollowed(t *testing.T) {
	var followed atomic.Int64
	other := serve(t, func(http.ResponseWriter, *http.Request) { followed.Add(1) })
	for _, status := range []int{301, 302, 303, 307, 308} {
		var asked atomic.Int64
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			http.Redirect(w, r, other.URL+"/?token="+r.Header.Get(tokenHeader), status)
		})
		c := newClient(t, Options{URL: s.URL, Token: token(secret)})
		if err := refused(t, c, all); !strings.Contains(hint(err), "redirects") {
			t.Errorf("%d: %v, hint %q", status, err, hint(err))
		}
		if v := c.Version(t.Context()); v != "" {
			t.Errorf("version %q", v)
		}
		if n := asked.Load(); n != 2 { // the page and GET /
			t.Errorf("%d: asked %d times", status, n)
		}
	}
	if n := followed.Load(); n != 0 {
		t.Errorf("followed %d times", n)
	}
}

func TestBackoff(t *testing.T) {
	c := newClient(t, Options{URL: "http://kong", RetryWait: [2]time.Duration{100 * time.Millisecond, time.Second}})
	backoff := c.retrying(nil, nil).Backoff
	for _, x := range []struct {
		retryAfter string
		attempt    int
		want       time.Duration
	}{
		{"", 0, 100 * time.Millisecond},
		{"", 1, 200 * time.Millisecond},
		{"", 60, time.Second},
		{"5", 0, 5 * time.Second},
		{"3600", 0, 10 * time.Second},
		{"0", 3, 100 * time.Millisecond},
		{"9223372036854775807", 0, 100 * time.Millisecond},
		{"-1", 0, 100 * time.Millisecond},
		{"soon", 0, 100 * time.Millisecond},
		{"Fri, 31 Dec 2199 23:59:59 GMT", 0, 10 * time.Second},
		{"Fri, 31 Dec 1999 23:59:59 GMT", 0, 100 * time.Millisecond},
	} {
		resp := &http.Response{StatusCode: 429, Header: http.Header{}}
		if x.retryAfter != "" {
			resp.Header.Set("Retry-After", x.retryAfter)
		}
		if got := backoff(100*time.Millisecond, time.Second, x.attempt, resp); got != x.want {
			t.Errorf("Retry-After %q, attempt %d: %v, want %v", x.retryAfter, x.attempt, got, x.want)
		}
	}
	for given, want := range map[[2]time.Duration][2]time.Duration{
		{}:                           {200 * time.Millisecond, 3 * time.Second},
		{time.Second, 0}:             {time.Second, time.Second},
		{time.Second, 2 * time.Hour}: {time.Second, 2 * time.Hour},
	} {
		if c, err := New(Options{URL: "http://kong", RetryWait: given}); err != nil || c.opts.RetryWait != want {
			t.Errorf("%v: %v, %v", given, c.opts.RetryWait, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	const nobody = "http://127.0.0.1:1" // a port that no system hands out
	err := refused(t, newClient(t, Options{URL: nobody, Token: token(secret), Retries: 1}), all)
	if !strings.Contains(audit.Hint(err), "no firewall") || hint(err) != "" {
		t.Error(err)
	}
	c := newClient(t, Options{URL: "http://kong.invalid:8001", Retries: 1})
	c.http.Transport = transport(func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "kong.invalid", IsNotFound: true}}
	})
	if err = refused(t, c, all); !strings.Contains(audit.Hint(err), "spelt right") || hint(err) != "" {
		t.Error(err)
	}
}

// Credentials in the address do not get into an error.
func TestUserinfo(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	err := refused(t, newClient(t, Options{URL: strings.Replace(s.URL, "//", "//relay:"+secret+"@", 1)}), all)
	if !strings.Contains(err.Error(), "relay:xxxxx@") {
		t.Error(err)
	}
}

// The client is for concurrent use; go test -race looks at it.
func TestConcurrent(t *testing.T) {
	k, u := kong(t, kongtest.Options{SkipReads: true, Chances: []kongtest.Chance{{P: 0.2, Fault: kongtest.Fault{Status: 500}}}}, rows(20)...)
	c := newClient(t, Options{URL: u, Retries: 20})
	results := make(chan []string)
	for range 8 {
		go func() {
			var own []string
			for range 10 {
				page, err := c.Page(t.Context(), all)
				if err != nil || len(page.Entries) != 20 {
					t.Errorf("%d entries, %v", len(page.Entries), err)
				}
				own = append(own, page.RequestIDs...)
			}
			results <- own
		}()
	}
	var own []string
	for range 8 {
		own = append(own, <-results...)
	}
	if err := k.Await(t.Context(), func() bool { return len(served(k)) >= len(own) }); err != nil {
		t.Fatal(err)
	}
	want := served(k)
	slices.Sort(own)
	slices.Sort(want)
	if !slices.Equal(own, want) {
		t.Errorf("%d own reads, want %d", len(own), len(want))
	}
}
