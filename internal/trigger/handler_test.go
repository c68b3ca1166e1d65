package trigger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	secretA = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secretB = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd"
)

// relay is a handler with what it has noted and logged.
type relay struct {
	http.Handler
	log bytes.Buffer

	mu       sync.Mutex
	calls    [][]string
	err      error
	outcomes map[string]int
}

// only returns the secrets of one path.
func only(path string, secrets ...string) func(string, bool) []string {
	return func(p string, _ bool) []string {
		if p == path {
			return secrets
		}
		return nil
	}
}

func newRelay(o Options) *relay {
	r := &relay{outcomes: map[string]int{}}
	o.Notify = func(_ context.Context, ids []string) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.err != nil {
			err := r.err
			r.err = nil
			return err
		}
		r.calls = append(r.calls, ids)
		return nil
	}
	o.Observe = func(_, outcome string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.outcomes[outcome]++
	}
	o.Logger = slog.New(slog.NewTextHandler(&r.log, nil))
	if o.Secrets == nil && !o.Unsigned {
		o.Secrets = only(Path, secretA)
	}
	r.Handler = NewHandler(o)
	return r
}

func (r *relay) noted() (ids []string, calls int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.calls...), len(r.calls)
}

// signed is a request as a sender with secret would make it at a time.
func signed(t testing.TB, secret, id string, at time.Time, body string) *http.Request {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := webhook.Sign(id, at, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, Path, strings.NewReader(body))
	r.Header.Set("webhook-id", id)
	r.Header.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
	r.Header.Set("webhook-signature", signature)
	return r
}

func answerOf(t testing.TB, h http.Handler, r *http.Request) (int, string, http.Header) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var a answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("the answer is not JSON: %q", w.Body)
	}
	if w.Code != http.StatusAccepted && a.Reason == "" {
		t.Errorf("%d without a reason", w.Code)
	}
	return w.Code, a.Reason, w.Header()
}

func TestHandlerTakesTriggers(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		want []string
	}{
		"ids":               {`{"request_ids":["a1","B2"],"sent_at":"2026-01-02T03:04:05.123Z"}`, []string{"a1", "B2"}},
		"poll now":          {`{"request_ids":[],"sent_at":"2026-01-02T03:04:05Z"}`, nil},
		"without a time":    {`{"request_ids":["` + strings.Repeat("z", 64) + `"]}`, []string{strings.Repeat("z", 64)}},
		"null":              {`{"request_ids":null}`, nil},
		"empty object":      {` {}`, nil},
		"spaces and breaks": {"\n{ \"request_ids\" : [ \"a\" ] }\n", []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(Options{})
			if code, reason, _ := answerOf(t, r, signed(t, secretA, "msg_1", time.Now(), test.body)); code != http.StatusAccepted {
				t.Fatalf("%d %s", code, reason)
			}
			if ids, calls := r.noted(); calls != 1 || !slices.Equal(ids, test.want) {
				t.Errorf("noted %q in %d calls", ids, calls)
			}
		})
	}
}

func TestHandlerRefuses(t *testing.T) {
	const good = `{"request_ids":["a1"]}`
	now := time.Now()
	request := func(change func(*http.Request)) *http.Request {
		r := signed(t, secretA, "msg_1", now, good)
		change(r)
		return r
	}
	body := func(s string) *http.Request { return signed(t, secretA, "msg_1", now, s) }
	header := func(name, value string) *http.Request {
		return request(func(r *http.Request) { r.Header.Set(name, value) })
	}
	for name, test := range map[string]struct {
		request *http.Request
		status  int
	}{
		"GET":                  {httptest.NewRequest(http.MethodGet, Path, nil), 405},
		"announced large":      {body(strings.Repeat(" ", MaxBody) + good), 413},
		"large":                {request(func(r *http.Request) { r.ContentLength = -1; r.Body = io.NopCloser(endless{}) }), 413},
		"body breaks off":      {request(func(r *http.Request) { r.Body = io.NopCloser(broken{}) }), 400},
		"no headers":           {httptest.NewRequest(http.MethodPost, Path, strings.NewReader(good)), 401},
		"no id":                {header("webhook-id", ""), 401},
		"odd id":               {header("webhook-id", "msg.1"), 401},
		"long id":              {header("webhook-id", strings.Repeat("a", 129)), 401},
		"two ids":              {request(func(r *http.Request) { r.Header.Add("webhook-id", "msg_2") }), 401},
		"other id":             {header("webhook-id", "msg_2"), 401},
		"no time":              {header("webhook-timestamp", "now"), 401},
		"other time":           {header("webhook-timestamp", strconv.FormatInt(now.Unix()+1, 10)), 401},
		"old":                  {signed(t, secretA, "msg_1", now.Add(-Tolerance-2*time.Second), good), 401},
		"far ahead":            {signed(t, secretA, "msg_1", now.Add(Tolerance+2*time.Second), good), 401},
		"overflowing time":     {header("webhook-timestamp", "9223372036854775807"), 401},
		"most negative time":   {header("webhook-timestamp", "-9223372036854775808"), 401},
		"no signature":         {header("webhook-signature", "v1,"), 401},
		"other version":        {header("webhook-signature", "v1a,"+strings.Repeat("A", 43)+"="), 401},
		"long signature":       {header("webhook-signature", strings.Repeat("v1,a ", 1000)), 401},
		"other secret":         {signed(t, secretB, "msg_1", now, good), 401},
		"changed body":         {request(func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(`{"request_ids":["b1"]}`)) }), 401},
		"no body":              {body(""), 400},
		"not JSON":             {body("request_ids"), 400},
		"null body":            {body("null"), 400},
		"array":                {body(`["a"]`), 400},
		"two objects":          {body(good + good), 400},
		"unknown name":         {body(`{"request_ids":["a"],"secret":"x"}`), 400},
		"other case":           {body(`{"Request_IDs":["a"]}`), 400},
		"twice the same name":  {body(`{"request_ids":["a"],"request_ids":["b"]}`), 400},
		"ids as text":          {body(`{"request_ids":"a"}`), 400},
		"number as id":         {body(`{"request_ids":[1]}`), 400},
		"empty id":             {body(`{"request_ids":[""]}`), 400},
		"id too long":          {body(`{"request_ids":["` + strings.Repeat("z", 65) + `"]}`), 400},
		"id with a slash":      {body(`{"request_ids":["../a"]}`), 400},
		"id of other letters":  {body(`{"request_ids":["ä"]}`), 400},
		"id that is not UTF-8": {body("{\"request_ids\":[\"\xff\"]}"), 400},
		"time of no form":      {body(`{"request_ids":[],"sent_at":"yesterday"}`), 400},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(Options{})
			code, reason, _ := answerOf(t, r, test.request)
			if code != test.status {
				t.Errorf("%d (%s), want %d", code, reason, test.status)
			}
			if _, calls := r.noted(); calls != 0 {
				t.Error("a refused trigger was noted")
			}
			if n := r.outcomes[outcomeOf(code)]; n != 1 {
				t.Errorf("outcomes %v", r.outcomes)
			}
			for _, word := range []string{"a1", "yesterday", "msg_1"} {
				if strings.Contains(r.log.String(), word) {
					t.Errorf("the log repeats what was sent: %s", r.log.String())
				}
			}
		})
	}
}

// endless and broken are bodies of hostile senders.
type (
	endless struct{}
	broken  struct{}
)

func (endless) Read(p []byte) (int, error) { return len(p), nil }
func (broken) Read([]byte) (int, error)    { return 0, io.ErrUnexpectedEOF }

// counted counts what is read of a body.
type counted struct {
	io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

func TestHandlerReadsNoMoreThanItTakes(t *testing.T) {
	r := newRelay(Options{})
	body := &counted{Reader: endless{}}
	req := signed(t, secretA, "msg_1", time.Now(), "")
	req.Body, req.ContentLength = io.NopCloser(body), -1
	if code, _, _ := answerOf(t, r, req); code != 413 || body.n > MaxBody+1 {
		t.Errorf("%d after %d bytes", code, body.n)
	}
}

func TestHandlerRotatesSecrets(t *testing.T) {
	var secrets []string
	r := newRelay(Options{Secrets: func(string, bool) []string { return secrets }})
	n := 0
	try := func(secret string) int {
		n++
		code, _, _ := answerOf(t, r, signed(t, secret, fmt.Sprint("msg_", n), time.Now(), `{}`))
		return code
	}
	for _, step := range []struct {
		secrets []string
		a, b    int
	}{
		{[]string{secretA}, 202, 401},
		{[]string{secretB, secretA}, 202, 202},
		{[]string{secretB}, 401, 202},
		{nil, 401, 401}, // a provider that has lost its secrets opens nothing
	} {
		secrets = step.secrets
		if a, b := try(secretA), try(secretB); a != step.a || b != step.b {
			t.Errorf("%d secrets: %d and %d, want %d and %d", len(secrets), a, b, step.a, step.b)
		}
	}
	// An empty key would verify what anyone can sign.
	secrets = []string{"whsec_"}
	if code := try("whsec_"); code != 401 {
		t.Errorf("%d for a signature with an empty key", code)
	}
}

func TestHandlerUnsigned(t *testing.T) {
	r := newRelay(Options{Unsigned: true})
	for range 2 {
		req := httptest.NewRequest(http.MethodPost, Path, strings.NewReader(`{"request_ids":["a"]}`))
		if code, reason, _ := answerOf(t, r, req); code != 202 {
			t.Errorf("%d %s", code, reason)
		}
	}
	req := httptest.NewRequest(http.MethodPost, EventHookPath, strings.NewReader(`{}`))
	if code, reason, _ := answerOf(t, r, req); code != 202 {
		t.Errorf("event hook: %d %s", code, reason)
	}
	if ids, calls := r.noted(); calls != 3 || len(ids) != 2 {
		t.Errorf("noted %q in %d calls", ids, calls)
	}
	// A secret wins over Unsigned.
	r = newRelay(Options{Unsigned: true, Secrets: only(Path, secretA)})
	if code, _, _ := answerOf(t, r, httptest.NewRequest(http.MethodPost, Path, strings.NewReader(`{}`))); code != 401 {
		t.Errorf("%d without a signature where there is a secret", code)
	}
}

func TestHandlerPromisesOnlyWhatIsNoted(t *testing.T) {
	r := newRelay(Options{})
	r.err = errors.New("ledger is down")
	code, _, header := answerOf(t, r, signed(t, secretA, "msg_1", time.Now(), `{"request_ids":["a"]}`))
	if code != 503 || header.Get("Retry-After") == "" {
		t.Errorf("%d %v", code, header)
	}
	if !strings.Contains(r.log.String(), "ledger is down") {
		t.Errorf("the log does not say why: %s", r.log.String())
	}
}

func BenchmarkHandler(b *testing.B) {
	body := `{"request_ids":["8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK"]}`
	for _, bench := range []struct{ name, secret, body string }{
		{"accepted", secretA, body}, {"wrong signature", secretB, body}, {"wrong signature, 64 KiB", secretB, strings.Repeat(" ", MaxBody)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			h := NewHandler(Options{
				Rate: 1 << 30, Secrets: only(Path, secretA),
				Notify: func(context.Context, []string) error { return nil }, Logger: slog.New(slog.DiscardHandler),
			})
			now := time.Now()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				w := httptest.NewRecorder()
				b.StopTimer()
				r := signed(b, bench.secret, fmt.Sprint("msg_", i), now, bench.body)
				b.StartTimer()
				h.ServeHTTP(w, r)
			}
		})
	}
}
