package trigger

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patient is for what a busy machine answers late.
const patient = time.Minute

// fast are bounds for tests that go through every attempt, each of which is answered.
var fast = Delivery{Timeout: patient, MaxWait: 20 * time.Millisecond}

// newClient returns a client that waits patiently unless it is told otherwise.
func newClient(t *testing.T, o ClientOptions) *Client {
	t.Helper()
	o.Timeout = cmp.Or(o.Timeout, patient)
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestClientAndHandler(t *testing.T) {
	r := newRelay(Options{})
	url := serve(t, r)
	for _, url := range []string{url, url + "/", url + Path} {
		c := newClient(t, ClientOptions{URL: url, Secret: secretA})
		if err := c.Notify(t.Context(), []string{"a", "b"}); err != nil {
			t.Fatal(err)
		}
		if err := c.Notify(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if ids, calls := r.noted(); calls != 6 || len(ids) != 6 {
		t.Errorf("noted %q in %d calls", ids, calls)
	}
}

func TestClientSplits(t *testing.T) {
	for _, length := range []int{1, 32, MaxID} {
		r := newRelay(Options{})
		c := newClient(t, ClientOptions{URL: serve(t, r), Secret: secretA})
		ids := make([]string, 20_000)
		for i := range ids {
			ids[i] = fmt.Sprintf("%0*d", length, i)[:length]
		}
		if err := c.Notify(t.Context(), ids); err != nil {
			t.Fatal(err)
		}
		noted, calls := r.noted()
		if !slices.Equal(noted, ids) {
			t.Errorf("%d of %d ids of %d bytes were noted", len(noted), len(ids), length)
		}
		if least := len(ids) * (length + 3) / MaxBody; calls > least+2 {
			t.Errorf("%d requests for what fits in %d", calls, least+1)
		}
	}
	c := newClient(t, ClientOptions{URL: "http://127.0.0.1:1"})
	if err := c.Notify(t.Context(), []string{strings.Repeat("a", MaxBody)}); err == nil {
		t.Error("an id larger than a body was sent")
	}
}

func TestClientSignsEachAttemptAnew(t *testing.T) {
	r := newRelay(Options{})
	r.err = errors.New("once") // 503 after the id has been claimed
	var mu sync.Mutex
	seen := map[string]bool{}
	c := newClient(t, ClientOptions{Secret: secretA, Delivery: fast, URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		seen[req.Header.Get("webhook-id")+req.Header.Get("webhook-signature")] = true
		mu.Unlock()
		r.ServeHTTP(w, req)
	}))})
	if err := c.Notify(t.Context(), []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if ids, _ := r.noted(); len(seen) != 2 || !slices.Equal(ids, []string{"a"}) {
		t.Errorf("%d attempts, noted %q", len(seen), ids)
	}
}

func TestClientBoundsItsAttempts(t *testing.T) {
	for name, test := range map[string]struct {
		status   int
		header   string
		attempts int32
		final    bool
	}{
		"400":                   {400, "", 1, true},
		"401":                   {401, "", 1, true},
		"404":                   {404, "", 1, true},
		"replay":                {409, "", 1, true},
		"413":                   {413, "", 1, true},
		"408":                   {408, "", 3, false},
		"redirect":              {302, "", 1, true},
		"501":                   {501, "", 3, false},
		"429":                   {429, "", 3, false},
		"429, a year":           {429, "31536000", 3, false},
		"429, an absurd time":   {429, "9223372036854775807", 3, false},
		"429, a date":           {429, "Fri, 31 Dec 2199 23:59:59 GMT", 3, false},
		"429, nonsense":         {429, "soon", 3, false},
		"503, a year":           {503, "31536000", 3, false},
		"an answer of no class": {999, "", 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var attempts atomic.Int32
			c := newClient(t, ClientOptions{Delivery: fast, URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				attempts.Add(1)
				w.Header().Set("Location", "/elsewhere")
				if test.header != "" {
					w.Header().Set("Retry-After", test.header)
				}
				w.WriteHeader(test.status)
			}))})
			ctx, cancel := context.WithTimeout(t.Context(), patient) // a year ends here
			defer cancel()
			err := c.Notify(ctx, []string{"a"})
			if err == nil || Final(err) != test.final || attempts.Load() != test.attempts {
				t.Errorf("%v (final: %v) after %d attempts", err, Final(err), attempts.Load())
			}
		})
	}
}

func TestClientShowsTheReason(t *testing.T) {
	for body, want := range map[string]string{
		`{"reason":"signature does not match"}`:         "refused with 401: signature does not match",
		"{\"reason\":\"one\\ntwo\"}":                    "refused with 401",
		`{"reason":"` + strings.Repeat("a", 101) + `"}`: "refused with 401",
		`<html>`: "refused with 401",
	} {
		c := newClient(t, ClientOptions{URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, body)
		}))})
		if err := c.Notify(t.Context(), nil); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// Whatever a relay does, Notify ends within its bounds.
func TestClientBearsHostileRelays(t *testing.T) {
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, text)
		}
	}
	forever := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			chunk := make([]byte, 1<<16)
			for r.Context().Err() == nil {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		ok      bool
	}{
		"garbage":          {raw("\x00\xff\xfe garbage\r\n\r\n"), false},
		"closed":           {raw(""), false},
		"half an answer":   {raw("HTTP/1.1 500 \r\nContent-Length: 100\r\n\r\nhalf"), false},
		"endless accepted": {forever(202), true},
		"endless failed":   {forever(500), false},
		"endless refused":  {forever(400), false},
		"slow":             {func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() }, false},
		"large header":     {raw("HTTP/1.1 202 Accepted\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"), false},
		"slow body": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := fast
			if !test.ok {
				d.Timeout = 200 * time.Millisecond
			}
			c := newClient(t, ClientOptions{URL: serve(t, test.handler), Delivery: d})
			start := time.Now()
			if err := c.Notify(t.Context(), []string{"a"}); (err == nil) != test.ok {
				t.Error(err)
			}
			if took := time.Since(start); took > patient {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestClientStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := newClient(t, ClientOptions{URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusServiceUnavailable)
		cancel()
	})), Delivery: Delivery{MaxWait: time.Minute}})
	if err := c.Notify(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestClientTLS(t *testing.T) {
	r := newRelay(Options{})
	s := httptest.NewTLSServer(r)
	t.Cleanup(s.Close)
	s.Config.ErrorLog = nil
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	// As in a Windows file that a form turned into one line.
	windows := strings.ReplaceAll(escapedPEM(s.Certificate()), `\n`, `\r\n`)
	for name, test := range map[string]struct {
		d  Delivery
		ok bool
	}{
		"unknown authority": {Delivery{}, false},
		"its authority":     {Delivery{CA: ca}, true},
		"in one line":       {Delivery{CA: escapedPEM(s.Certificate())}, true},
		"with \\r":          {Delivery{CA: windows}, true},
		"not verified":      {Delivery{Insecure: true}, true},
	} {
		c := newClient(t, ClientOptions{URL: s.URL, Secret: secretA, Delivery: test.d})
		if err := c.Notify(t.Context(), nil); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewClient(ClientOptions{URL: s.URL, Secret: secretA, Delivery: Delivery{CA: "no PEM"}}); err == nil {
		t.Error("a CA that is not PEM was taken")
	}
}

// escapedPEM is the certificate as PEM text whose line ends are the two characters \n.
func escapedPEM(c *x509.Certificate) string {
	return strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})), "\n", `\n`)
}

func TestNewClientRefuses(t *testing.T) {
	for _, o := range []ClientOptions{
		{URL: ""}, {URL: "relay:8080"}, {URL: "ftp://relay"}, {URL: "http://"}, {URL: "http://\x00"},
		{URL: "http://user:hidden@localhost"}, {URL: "http://localhost?token=hidden"}, {URL: "http://localhost#hidden"},
		{URL: "http://relay:8080"}, {URL: "http://10.0.0.1", Secret: ""},
		{URL: "http://localhost:0"}, {URL: "http://localhost:65536"}, {URL: "http://[::1]:0/v1/trigger"}, {URL: "http://localhost:99999999999999999999"},
		{URL: "http://relay", Secret: "hidden"}, {URL: "http://relay", Secret: "whsec_hidden"},
	} {
		if _, err := NewClient(o); err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
