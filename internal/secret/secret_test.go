package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awscall"
)

func TestSecretDoesNotPrintItself(t *testing.T) {
	s := New(Source{Where: "TOKEN", Read: func(context.Context) (string, error) { return "hunter2", nil }})
	if text, err := s.Reveal(t.Context()); text != "hunter2" || err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Exported Secret
		hidden   Secret
		Pointer  *Secret
	}
	h := holder{s, s, &s}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		for _, value := range []any{s, &s, h, &h, []Secret{s}, map[string]Secret{"a": s}} {
			fmt.Fprintf(&out, verb, value)
		}
	}
	fmt.Fprintln(&out, s, h)
	if err := json.MarshalWrite(&out, []any{s, h, map[string]any{"a": s}}); err != nil {
		t.Fatal(err)
	}
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("settings", "secret", s, "holder", h, "pointer", &s)
	}
	for _, hidden := range []string{"hunter2", "68756e74657232", "68756E74657232"} {
		if strings.Contains(out.String(), hidden) {
			t.Errorf("a secret is printed as %s", hidden)
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing was printed in its place")
	}
}

func TestSecretThatIsNotSet(t *testing.T) {
	var s Secret
	if text, err := s.Fetch(t.Context(), true); s.IsSet() || text != "" || err != nil {
		t.Errorf("set %v, %v", s.IsSet(), err)
	}
}

// place is where a secret is kept, which can be changed and broken.
type place struct {
	mu    sync.Mutex
	text  string
	err   error
	reads int
}

func (p *place) read(context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reads++
	return p.text, p.err
}

func TestSecretIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{text: " one\n"}
		s := New(Source{Where: "TOKEN", Refresh: time.Minute, Read: p.read})
		step := func(what, want string, reads int) {
			t.Helper()
			got, err := s.Reveal(t.Context())
			if got != want || (err != nil) != (want == "") || p.reads != reads {
				t.Errorf("%s: right text %v, error %v, %d reads", what, got == want, err, p.reads)
			}
		}
		refuse := func() {
			t.Helper()
			if _, err := s.Fetch(t.Context(), true); err != nil { // too soon to read it again
				t.Error(err)
			}
		}
		step("first", "one", 1)
		p.text = "two"
		step("soon after", "one", 1)
		time.Sleep(time.Minute)
		step("a minute after", "two", 2)

		p.text = "three"
		refuse()
		step("refused, too soon to ask again", "two", 2)
		time.Sleep(reloadPause)
		step("refused", "three", 3)
		step("soon after", "three", 3)

		p.err = errors.New("down")
		time.Sleep(time.Minute)
		step("down, and nobody refused the text", "three", 4)
		step("still down, no flood", "three", 4)
		refuse()
		time.Sleep(reloadPause)
		step("down, and refused", "", 5)
		step("no flood either", "three", 5)
		p.err, p.text = nil, "four"
		time.Sleep(reloadPause)
		step("up again", "four", 6)
	})
}

// A clock that was set back does not keep a text that was refused.
func TestSecretAfterTheClockWasSetBack(t *testing.T) {
	p := &place{text: "one"}
	s := New(Source{Where: "TOKEN", Refresh: time.Minute, Read: p.read})
	if text, err := s.Reveal(t.Context()); text != "one" || err != nil {
		t.Fatal(err)
	}
	p.text = "two"
	s.state.at, s.state.tried = s.state.at.Add(time.Hour), s.state.tried.Add(time.Hour)
	if text, err := s.Fetch(t.Context(), true); text != "two" || err != nil {
		t.Errorf("right text %v, error %v", text == "two", err)
	}
}

func TestSecretThatCannotBe(t *testing.T) {
	p := &place{text: "hunter2 hunter2"}
	check := func(string) error { return errors.New("expected something else") }
	_, err := New(Source{Where: "TOKEN", Check: check, Read: p.read}).Reveal(t.Context())
	if err == nil || !strings.Contains(err.Error(), "TOKEN") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error names the setting and not the text: %v", err != nil)
	}
	p.text = "\n"
	if _, err := New(Source{Where: "TOKEN", Read: p.read}).Reveal(t.Context()); !errors.Is(err, ErrEmpty) {
		t.Errorf("error %v", err)
	}
}

func TestSecretWaitsNoLongerThanItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := New(Source{Where: "TOKEN", Read: func(context.Context) (string, error) { <-release; return "text", nil }})
		var wg sync.WaitGroup
		wg.Go(func() {
			if text, err := s.Reveal(t.Context()); text != "text" || err != nil {
				t.Errorf("error %v", err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Reveal(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		close(release)
		wg.Wait()
	})
}

// secretsManager is a stand-in for Secrets Manager, which speaks JSON 1.1.
func secretsManager(t *testing.T, answer func(id string) (status int, body string)) *awscall.Configs {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			SecretID string `json:"SecretId"`
		}
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &in); err != nil || r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" {
			t.Errorf("call %s: %v", r.Header.Get("X-Amz-Target"), err)
		}
		if !strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/secretsmanager/") {
			t.Error("not signed for the ARN's Region")
		}
		status, text := answer(in.SecretID)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(server.Close)
	return &awscall.Configs{Load: func(context.Context) (aws.Config, error) {
		return aws.Config{
			Region: "us-east-1", BaseEndpoint: &server.URL, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
			Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "example", ""),
		}, nil
	}}
}

func TestSecretInSecretsManager(t *testing.T) {
	const id = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:kong-AbCdEf"
	tests := map[string]struct {
		arn    string
		status int
		body   string
		want   string
		hint   string // of a settings error
	}{
		"text":          {id, 200, `{"SecretString":"hunter2"}`, "hunter2", ""},
		"binary":        {id, 200, `{"SecretBinary":"aHVudGVyMg=="}`, "hunter2", ""},
		"key":           {id + "#token", 200, `{"SecretString":"{\"token\":\"hunter2\",\"n\":1}"}`, "hunter2", ""},
		"no such key":   {id + "#other", 200, `{"SecretString":"{\"token\":\"hunter2\"}"}`, "", "after #"},
		"not text":      {id + "#n", 200, `{"SecretString":"{\"n\":{\"hunter2\":1}}"}`, "", "after #"},
		"not JSON":      {id + "#token", 200, `{"SecretString":"hunter2"}`, "", "#"},
		"missing":       {id, 400, `{"__type":"ResourceNotFoundException","message":"no"}`, "", "ARN"},
		"no permission": {id, 400, `{"__type":"AccessDeniedException","message":"no"}`, "", "secretsmanager:GetSecretValue"},
		"echo":          {id, 403, `{"__type":"SignatureDoesNotMatch","message":"It does not match.\n\nThe Canonical String was\n'POST\nx-amz-security-token:hunter2'"}`, "", "AWS_SECRET_ACCESS_KEY"},
		"echo in text":  {id, 400, `{"__type":"SomethingNew","message":"Invalid \"hunter2\""}`, "", ""},
		"a proxy":       {id, 502, `<html>hunter2</html>`, "", ""},
		"broken":        {id, 500, `{"__type":"InternalServiceError"}`, "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			configs := secretsManager(t, func(got string) (int, string) {
				if got != id {
					t.Errorf("asked for %s", got)
				}
				return test.status, test.body
			})
			a, ok := ParseARN(test.arn)
			if !ok {
				t.Fatal("not an ARN")
			}
			got, err := New(a.Source(configs)).Reveal(t.Context())
			if got != test.want || (err == nil) != (test.want != "") {
				t.Fatalf("right text %v, error %v", got == test.want, err)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("the error repeats the secret")
			}
			var settings *audit.SettingsError
			if errors.As(err, &settings) != (test.hint != "") {
				t.Fatalf("a settings error? %v", err)
			}
			if settings != nil && !strings.Contains(audit.Hint(settings), test.hint) {
				t.Errorf("hint %q", audit.Hint(settings))
			}
		})
	}
}

// TestSecretThatIsDoubted reads a secret again that did not fit, and keeps it if it cannot.
func TestSecretThatIsDoubted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{text: "one"}
		s := New(Source{Where: "TOKEN", Refresh: time.Hour, Read: p.read})
		reveal := func(want string, times int) {
			t.Helper()
			if got, err := s.Reveal(t.Context()); err != nil || got != want || p.reads != times {
				t.Errorf("%q, %v, read %d times; want %q, %d", got, err, p.reads, want, times)
			}
		}
		reveal("one", 1)
		p.text = "two"
		s.Refresh()
		reveal("one", 1) // just read
		time.Sleep(reloadPause)
		reveal("two", 2)
		time.Sleep(reloadPause)
		reveal("two", 2)
		p.err = errors.New("gone")
		s.Refresh()
		reveal("two", 3)
		time.Sleep(time.Second)
		reveal("two", 3)
	})
	Secret{}.Refresh()
}
