package cloudtrail

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// call is what a server of these tests was asked for.
type call struct {
	header http.Header
	query  map[string][]string
	path   string
	size   int
	events []callEvent
}

type callEvent struct {
	ID       string `json:"id"`
	Data     string `json:"eventData"`
	Checksum string `json:"eventDataChecksum"`
}

func (c call) ids() (ids []string) {
	for _, e := range c.events {
		ids = append(ids, e.ID)
	}
	return ids
}

// has tells whether a call carries an event.
func (c call) has(id string) bool {
	for _, e := range c.events {
		if e.ID == id {
			return true
		}
	}
	return false
}

// answer is a body that accepts the events of a call, but for those in failed.
func (c call) answer(failed map[string]string) string {
	var ok, bad []string
	for _, e := range c.events {
		if code, is := failed[e.ID]; is {
			bad = append(bad, fmt.Sprintf(`{"id":%q,"errorCode":%q,"errorMessage":"because"}`, e.ID, code))
		} else {
			ok = append(ok, fmt.Sprintf(`{"id":%q,"eventID":"4a1b"}`, e.ID))
		}
	}
	return `{"failed":[` + strings.Join(bad, ",") + `],"successful":[` + strings.Join(ok, ",") + `]}`
}

// testServer is a server that answers as a test wants it to.
type testServer struct {
	*httptest.Server
	mu    sync.Mutex
	calls []call
}

// serve starts a server. answer gets each call, counted from 1.
func serve(t *testing.T, answer func(w http.ResponseWriter, c call, n int)) *testServer {
	t.Helper()
	s := &testServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client gave up
		}
		var in struct {
			AuditEvents []callEvent `json:"auditEvents"`
		}
		if err := json.Unmarshal(body, &in); err != nil {
			t.Errorf("body is not JSON: %v", err)
		}
		c := call{header: r.Header, query: r.URL.Query(), path: r.URL.Path, size: len(body), events: in.AuditEvents}
		for _, e := range c.events {
			if sum := sha256.Sum256([]byte(e.Data)); e.Checksum != base64.StdEncoding.EncodeToString(sum[:]) && e.ID != "relay-check" {
				t.Errorf("event %s: checksum %s is not that of its data", e.ID, e.Checksum)
			}
		}
		s.mu.Lock()
		s.calls = append(s.calls, c)
		n := len(s.calls)
		s.mu.Unlock()
		answer(w, c, n)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *testServer) seen() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func acceptAll(w http.ResponseWriter, c call, _ int) { _, _ = io.WriteString(w, c.answer(nil)) }

// entries returns n of them, with the ids e0, e1 and so on.
func entries(n int) []audit.Entry {
	es := make([]audit.Entry, n)
	for i := range es {
		es[i] = typical(i)
		es[i].ID = fmt.Sprintf("e%d", i)
		es[i].RequestID = es[i].ID
	}
	return es
}

// statuses writes verdicts as one letter each: A, R or U.
func statuses(verdicts []audit.Verdict) string {
	var b strings.Builder
	for _, v := range verdicts {
		b.WriteByte("UAR"[v.Status])
	}
	return b.String()
}
