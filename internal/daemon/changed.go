package daemon

import (
	"bytes"
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

const (
	maxChanged    = 12
	historyWithin = 25 * time.Second // less than the listener gives an answer
)

// latest holds the newest of some values. It is safe for concurrent use.
type latest[T any] struct {
	mu   sync.Mutex
	list []T // newest first
}

// add adds values, newest first, and drops the oldest beyond most.
func (l *latest[T]) add(most int, newer ...T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = slices.Concat(newer, l.list)
	l.list = l.list[:min(len(l.list), most)]
}

// all returns the values, newest first. The caller does not change them.
func (l *latest[T]) all() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list
}

// changedEntity is an entity that was changed, according to a delivered event. It has no
// values: the page may be open to many.
type changedEntity struct {
	At        time.Time
	Who       string
	Operation string
	Entity    string
	Name      string // or its id
	Path      string // where its history is; empty if it is not shown
	History   changes.History
}

func (s *server) noteChanged(entries []audit.Entry) {
	var fresh []changedEntity
	linked := s.showsHistory()
	for i := len(entries) - 1; i >= 0 && len(fresh) < maxChanged; i-- {
		e := &entries[i]
		if e.Changes == "" {
			continue
		}
		for _, one := range changes.Of(e.Changes) {
			n := changedEntity{
				At: time.Unix(e.Timestamp, 0), Who: cmp.Or(e.RBACUserName, "anonymous"), Operation: one.Operation,
				Entity: one.Entity, Name: cmp.Or(one.Name, one.Key), History: one.History,
			}
			if linked {
				n.Path = "history/" + url.PathEscape(one.Entity) + "/" + url.PathEscape(one.Key)
			}
			fresh = append(fresh, n)
		}
	}
	if len(fresh) > 0 {
		s.changed.add(maxChanged, fresh...)
	}
}

// showsHistory reports whether the operations address serves histories. They contain
// values, so it does only if the address can be reached from this machine alone.
func (s *server) showsHistory() bool {
	return s.app.Settings.Objects && trigger.Loopback(s.app.Settings.OpsListen)
}

// entityHistory answers with what relay history prints.
func (s *server) entityHistory(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	if !trigger.Loopback(r.Host) { // a name that somebody else's page has made to mean this machine
		http.Error(w, "ask for the address itself, such as 127.0.0.1", http.StatusForbidden)
		return
	}
	if !s.reading.TryLock() {
		http.Error(w, "another history is being read, try again in a moment", http.StatusTooManyRequests)
		return
	}
	defer s.reading.Unlock()
	ctx, cancel := context.WithTimeout(r.Context(), historyWithin)
	defer cancel()
	report, err := s.app.History(ctx, r.PathValue("type"), r.PathValue("name"), 0)
	if err != nil {
		s.log.Debug("history not read", "err", err)
		http.Error(w, "Kong's logs could not be read: relay history says why", http.StatusBadGateway)
		return
	}
	var body bytes.Buffer
	if len(report.Events) == 0 {
		http.Error(w, "Kong's logs have no change of this entity", http.StatusNotFound)
		return
	}
	if err := report.Print(&body, false); err != nil {
		s.log.Error("history not written", "err", err)
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = body.WriteTo(w) // a client that went away
}
