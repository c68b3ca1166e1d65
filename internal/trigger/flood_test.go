package trigger

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Whoever does not know the secret cannot use up the rate of those who do, at
// any number of requests a second: the clock stands still. A flood is logged in
// a line or two.
func TestHandlerBearsAFlood(t *testing.T) {
	now := time.Now()
	r := newRelay(Options{Rate: 50, Now: func() time.Time { return now }, Secrets: func(path string, _ bool) []string {
		return []string{map[string]string{Path: secretA, EventHookPath: "kong-hook"}[path]}
	}})
	statuses := map[int]int{}
	count := func(requests ...*http.Request) {
		for _, req := range requests {
			code, _, _ := answerOf(t, r, req)
			statuses[code]++
		}
	}
	hooks := 0
	hookBy := func(secret string) *http.Request {
		hooks++
		return signedHook(secret, fmt.Sprint(hooks))
	}
	for i := range 10_000 {
		count(signed(t, secretB, fmt.Sprint("msg_", i), now, `{"request_ids":["a"]}`), hookBy("guess"))
		if i%200 == 100 {
			count(signed(t, secretA, fmt.Sprint("msg_true_", i), now, `{}`), hookBy("kong-hook"))
		}
	}
	if statuses[401] != 20_000 || statuses[202] != 100 || len(statuses) != 2 {
		t.Errorf("statuses %v", statuses)
	}
	if lines := strings.Count(r.log.String(), "\n"); lines != 1 {
		t.Errorf("%d lines in the log", lines)
	}
	// Who does know it, is held to the rate, and may send the same once more.
	last := func() *http.Request { return signed(t, secretA, "msg_last", now, `{}`) }
	count(last(), hookBy("kong-hook"))
	if statuses[429] != 2 {
		t.Errorf("statuses %v over the rate", statuses)
	}
	now = now.Add(logEvery)
	if code, _, _ := answerOf(t, r, last()); code != 202 {
		t.Errorf("%d after the flood", code)
	}
	answerOf(t, r, httptest.NewRequest(http.MethodGet, Path, nil))
	if !strings.Contains(r.log.String(), "count=20002") {
		t.Errorf("the log does not count: %s", r.log.String())
	}
}

// Where there is no secret, nobody can be told from anybody: what is over the
// rate is not read.
func TestHandlerUnsignedRate(t *testing.T) {
	now := time.Now()
	r := newRelay(Options{Rate: 1, Unsigned: true, Now: func() time.Time { return now }})
	for _, path := range []string{Path, EventHookPath} {
		for _, want := range []int{202, 429} {
			body := &counted{Reader: strings.NewReader(`{}`)}
			code, _, _ := answerOf(t, r, httptest.NewRequest(http.MethodPost, path, body))
			if code != want || (body.n == 0) != (want == 429) {
				t.Errorf("%s: %d after %d bytes, want %d", path, code, body.n, want)
			}
		}
	}
}

// Bodies that do not arrive take no more than their places, and keep nobody out. Once the time of a body
// has passed, as it may on a machine that stood still, it is cut whether it is in the way or not.
func TestHandlerCutsSlowBodies(t *testing.T) {
	for range 5 {
		if took := cutsSlowBodies(t); took < readFor || t.Failed() {
			return
		}
	}
	t.Error("bodies are cut only once their time has passed")
}

// cutsSlowBodies returns how long it takes until a trigger is accepted beside bodies that do not arrive.
func cutsSlowBodies(t *testing.T) time.Duration {
	t.Helper()
	const extra = 8
	r := newRelay(Options{})
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	request := signed(t, secretB, "msg_slow", time.Now(), "")
	request.Header.Set("Content-Length", strconv.Itoa(MaxBody))
	var head bytes.Buffer
	fmt.Fprintf(&head, "POST %s HTTP/1.1\r\nHost: relay\r\n", Path)
	if err := request.Header.Write(&head); err != nil {
		t.Fatal(err)
	}
	head.WriteString("\r\n{")
	answers := make(chan int, maxBodies+extra)
	start := time.Now() // no body has used up its time before readFor has passed
	for range maxBodies + extra {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write(head.Bytes()); err != nil {
			t.Fatal(err)
		}
		go func() {
			if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
				_ = resp.Body.Close()
				answers <- resp.StatusCode
			}
		}()
	}
	for range extra {
		if code := <-answers; code != http.StatusRequestTimeout {
			t.Errorf("%d for a body that does not come", code)
		}
	}
	c := newClient(t, ClientOptions{URL: s.URL, Secret: secretA, Delivery: Delivery{Retries: -1}})
	if err := c.Notify(t.Context(), []string{"a"}); err != nil {
		t.Error(err)
	}
	return time.Since(start)
}

// A request that is refused for its head is answered at once, also if its sender waits to be asked for the body:
// one whose body is waited for is answered with 408.
func TestRefusedBeforeTheBody(t *testing.T) {
	r := newRelay(Options{Secrets: func(string, bool) []string { return []string{secretA} }})
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	for _, path := range []string{Path, EventHookPath, HTTPLogPath} {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(patient)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: relay\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if _ = resp.Body.Close(); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: status %d", path, resp.StatusCode)
		}
	}
}
