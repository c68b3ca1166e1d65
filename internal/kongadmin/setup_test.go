package kongadmin

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
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// secret is a token that must never be seen anywhere but in its header.
const secret = "s3cr3t-admin-token"

func token(s string) func(context.Context, bool) (string, error) {
	return func(context.Context, bool) (string, error) { return s, nil }
}

// newClient returns a client that waits little between attempts, logs everything,
// and fails the test if the token gets into the log.
func newClient(t testing.TB, o Options) *Client {
	t.Helper()
	if o.RetryWait[0] == 0 {
		o.RetryWait = [2]time.Duration{time.Millisecond, 2 * time.Millisecond}
	}
	log := &lockedBuffer{}
	o.Logger = slog.New(logHandler{slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}), log})
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.http.CloseIdleConnections()
		if strings.Contains(log.String(), secret) {
			t.Error("the token is in the log")
		}
	})
	return c
}

// logHandler is a handler that writes to log.
type logHandler struct {
	slog.Handler

	log *lockedBuffer
}

// retries returns how many attempts of a client from newClient were made again.
func retries(c *Client) int {
	return strings.Count(c.opts.Logger.Handler().(logHandler).log.String(), "asking again")
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// kong starts an emulated Admin API with some rows.
func kong(t testing.TB, o kongtest.Options, rows ...auditlog.Row) (*kongtest.Server, string) {
	t.Helper()
	k := kongtest.New(o)
	t.Cleanup(func() { k.Close() })
	k.Add(rows...)
	u, err := k.Start()
	if err != nil {
		t.Fatal(err)
	}
	return k, u
}

func rows(n int) []auditlog.Row {
	var rows []auditlog.Row
	for r := range auditlog.Generate(n, 1, auditlog.Mix{Plain: true}) {
		rows = append(rows, r)
	}
	return rows
}

// serve starts a server that can do what the emulator cannot.
func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// pageDate is when pages were answered.
var pageDate = time.Unix(1700000000, 0)

const emptyPage = `{"data":[],"next":null}`

var all = audit.Query{Size: 1000}

// refused asks for a page that must not come, and checks what every error must be.
func refused(t *testing.T, c *Client, q audit.Query) error {
	t.Helper()
	page, err := c.Page(t.Context(), q)
	if err == nil {
		t.Fatalf("got a page of %d entries", len(page.Entries))
	}
	if page.Entries != nil || page.Offset != "" {
		t.Errorf("got entries along with %v", err)
	}
	text := fmt.Sprintf("%v %+v %#v", err, err, err)
	if s, ok := errors.AsType[*audit.SettingsError](err); ok {
		if audit.Hint(s) == "" {
			t.Errorf("no hint with %v", err)
		}
		text += audit.Hint(s)
	}
	if strings.Contains(text, secret) {
		t.Error("the token is in the error")
	}
	return err
}

// hint returns the hint of an error that a person has to act on, and "" for any other.
func hint(err error) string {
	if s, ok := errors.AsType[*audit.SettingsError](err); ok {
		return audit.Hint(s)
	}
	return ""
}

// say writes to a client that may have gone.
func say(w io.Writer, s string) { _, _ = io.WriteString(w, s) }
