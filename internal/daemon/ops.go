package daemon

import (
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/go-json-experiment/json"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
)

// readiness is what became of the last try to reach Kong, ledger and destination.
type readiness struct {
	mu    sync.Mutex
	tried bool
	err   error
	since time.Time
}

func (r *readiness) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.tried || (r.err == nil) != (err == nil) {
		r.since = time.Now()
	}
	r.tried, r.err = true, err
}

type readyAnswer struct {
	Ready   bool    `json:"ready"`
	Reason  string  `json:"reason,omitempty"`
	Hint    string  `json:"hint,omitempty"`
	Since   string  `json:"since,omitempty"`
	PassAge float64 `json:"last_complete_pass_age_seconds"`
}

func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	s.ready.mu.Lock()
	a := readyAnswer{Ready: s.ready.tried && s.ready.err == nil}
	if !s.ready.since.IsZero() {
		a.Since = s.ready.since.UTC().Format(time.RFC3339)
	}
	switch {
	case !s.ready.tried:
		a.Reason = "the first pass has not ended yet"
	case s.ready.err != nil:
		a.Reason = s.ready.err.Error()
		a.Hint = audit.Hint(app.Explain(s.ready.err))
	}
	s.ready.mu.Unlock()
	age := s.metrics.completeAge()
	a.PassAge = age.Seconds()
	if stalled := 3 * s.app.Settings.Schedule; a.Ready && age > stalled {
		a.Ready, a.Reason = false, "no pass has been complete for more than three times the schedule"
	}
	w.Header().Set("Content-Type", "application/json")
	if !a.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.MarshalEncode(jsontext.NewEncoder(w), a) // a client that went away
}

func (s *server) opsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	return mux
}
