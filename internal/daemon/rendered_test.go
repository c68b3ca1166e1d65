package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// However many ask, an answer is made once a second, and at once when something has changed.
func TestRenderedOnceASecond(t *testing.T) {
	made, fails := 0, false
	a := &rendered{render: func(_ context.Context, w io.Writer) error {
		if fails {
			return errors.New("no")
		}
		made++
		_, err := fmt.Fprintf(w, "answer %d", made)
		return err
	}}
	start := time.Now()
	expect := func(after time.Duration, changes uint64, want string) {
		t.Helper()
		body, err := a.body(t.Context(), start.Add(after), changes)
		if err != nil || string(body) != want {
			t.Errorf("%q, %v, want %q", body, err, want)
		}
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { expect(0, 0, "answer 1") })
	}
	all.Wait()
	expect(999*time.Millisecond, 0, "answer 1")
	expect(999*time.Millisecond, 1, "answer 2")
	expect(2*time.Second, 1, "answer 3")
	expect(time.Second, 1, "answer 4") // a clock that was set back
	fails = true
	if body, err := a.body(t.Context(), start.Add(time.Hour), 1); err == nil {
		t.Errorf("an old answer is given: %q", body)
	}
}

var (
	urlInPage  = regexp.MustCompile(`(?i)(https?:)?//[a-z0-9]|\b(src|srcset|action|poster|background)\s*=|@import|url\(`)
	hostPolicy = regexp.MustCompile(`(?i)https?:|\*|unsafe|//`)
)

// The page loads nothing from anywhere, and its policy lets it load nothing but itself.
func TestPageLoadsNothing(t *testing.T) {
	page, policy := newPage()
	var b bytes.Buffer
	if err := page.Execute(&b, &pageData{Sentence: "</style><script>alert(1)</script>"}); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if found := urlInPage.FindString(text); found != "" {
		t.Errorf("the page has %q", found)
	}
	if found := hostPolicy.FindString(policy); found != "" || !strings.HasPrefix(policy, "default-src 'none'; ") {
		t.Errorf("%q in the policy %s", found, policy)
	}
	for _, tag := range []string{"style", "script"} {
		parts := regexp.MustCompile(`(?s)<`+tag+`[^>]*>(.*?)</`+tag+`>`).FindAllStringSubmatch(text, -1)
		if len(parts) != 1 {
			t.Fatalf("%d times <%s>", len(parts), tag)
		}
		sum := sha256.Sum256([]byte(parts[0][1]))
		if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy, tag+"-src "+want+";") {
			t.Errorf("the policy does not let the page use its own %s: %s", tag, policy)
		}
	}
}
