package trigger

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

func hook(body io.Reader, signature string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, EventHookPath, body)
	if signature != "" {
		r.Header.Set("x-kong-signature", signature)
	}
	return r
}

// signedHook is an event hook that Kong signs with secret.
func signedHook(secret, body string) *http.Request {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return hook(strings.NewReader(body), "sha256="+hex.EncodeToString(mac.Sum(nil)))
}

func TestEventHooks(t *testing.T) {
	const secret, body = "kong-hook", `{"event":"routes","entity":{"key":"hidden-value"}}`
	sum := func(name, secret string) string {
		mac := hmac.New(sha1.New, []byte(secret))
		if name == "sha256" {
			mac = hmac.New(sha256.New, []byte(secret))
		}
		mac.Write([]byte(body))
		return name + "=" + hex.EncodeToString(mac.Sum(nil))
	}
	for name, test := range map[string]struct {
		request *http.Request
		status  int
	}{
		"SHA-1":                {hook(strings.NewReader(body), sum("sha1", secret)), 202},
		"SHA-256":              {hook(strings.NewReader(body), sum("sha256", secret)), 202},
		"the next secret":      {hook(strings.NewReader(body), sum("sha1", "next")), 202},
		"upper case":           {hook(strings.NewReader(body), "sha1="+strings.ToUpper(sum("sha1", secret)[5:])), 202},
		"other secret":         {hook(strings.NewReader(body), sum("sha1", "guess")), 401},
		"empty secret":         {hook(strings.NewReader(body), sum("sha1", "")), 401},
		"other body":           {hook(strings.NewReader(body+" "), sum("sha256", secret)), 401},
		"none":                 {hook(strings.NewReader(body), ""), 401},
		"no name":              {hook(strings.NewReader(body), sum("sha1", secret)[5:]), 401},
		"unknown name":         {hook(strings.NewReader(body), "md5=00112233445566778899aabbccddeeff"), 401},
		"cut off":              {hook(strings.NewReader(body), sum("sha1", secret)[:20]), 401},
		"SHA-1 named SHA-256":  {hook(strings.NewReader(body), "sha256="+sum("sha1", secret)[5:]), 401},
		"not hex":              {hook(strings.NewReader(body), "sha1="+strings.Repeat("z", 40)), 401},
		"10 MB":                {hook(strings.NewReader(strings.Repeat("x", 10<<20)), sum("sha1", secret)), 413},
		"endless":              {hook(io.MultiReader(endless{}), sum("sha1", secret)), 413},
		"GET":                  {httptest.NewRequest(http.MethodGet, EventHookPath, nil), 405},
		"trigger's own secret": {signedPath(t, EventHookPath), 401},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(Options{Secrets: only(EventHookPath, secret, "next", "")})
			code, reason, _ := answerOf(t, r, test.request)
			if code != test.status {
				t.Errorf("%d %s, want %d", code, reason, test.status)
			}
			if ids, calls := r.noted(); len(ids) != 0 || (calls == 1) != (code == 202) {
				t.Errorf("noted %q in %d calls", ids, calls)
			}
			if strings.Contains(r.log.String(), "hidden") {
				t.Error("the body is in the log")
			}
		})
	}
	if code, _, _ := answerOf(t, newRelay(Options{}), hook(strings.NewReader(body), sum("sha1", ""))); code != 401 {
		t.Errorf("%d without a secret", code)
	}
}

func signedPath(t *testing.T, path string) *http.Request {
	r := signed(t, secretA, "msg_1", time.Now(), `{}`)
	r.URL.Path = path
	return r
}

// Kong signs neither an id nor a time, so a captured hook stays valid. It may be
// accepted a few times, because two true hooks can be equal, but not without end.
func TestCapturedEventHookCannotPollWithoutEnd(t *testing.T) {
	now := time.Now()
	r := newRelay(Options{
		Secrets: only(EventHookPath, "kong-hook"),
		Now:     func() time.Time { return now },
		Poll:    func() { t.Error("a repeated hook polls all the same") },
	})
	accepted := 0
	const hour = 3600
	for range hour {
		for range 5 {
			if code, _, header := answerOf(t, r, signedHook("kong-hook", "captured")); code == http.StatusAccepted {
				accepted++
			} else if code != http.StatusTooManyRequests || header.Get("Retry-After") != "60" { // not in a second: it would be refused again
				t.Fatalf("%d %v", code, header)
			}
		}
		now = now.Add(time.Second)
	}
	if most := repeatBurst + int(hour*time.Second/repeatEvery); accepted > most {
		t.Errorf("a captured hook was accepted %d times in an hour, want at most %d", accepted, most)
	}
	for i := range 50 {
		if code, reason, _ := answerOf(t, r, signedHook("kong-hook", fmt.Sprint(i))); code != http.StatusAccepted {
			t.Errorf("another hook: %d %s", code, reason)
		}
	}
}

func TestRepeatsAreBounded(t *testing.T) {
	h := handler{Options: Options{Now: time.Now}, hooks: recent[*rate.Limiter]{most: maxRepeats, keep: repeatEvery}}
	for i := range 3 * maxRepeats {
		h.allowHook(fmt.Sprint(i))
	}
	if n := len(h.hooks.cur) + len(h.hooks.prev); n > 2*maxRepeats {
		t.Errorf("%d hooks are remembered", n)
	}
}
