package daemon

import (
	"context"
	"io"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/health"
)

// readiness is the answer of /readyz.
type readiness struct {
	Ready bool `json:"ready"`
	// Reason and Hint say why it is not ready, or else what is degraded.
	Reason string `json:"reason,omitempty"`
	Hint   string `json:"hint,omitempty"`
	// Degraded are the dependencies that fail. A relay that was ready once stays so
	// while it can use its ledger: it takes triggers, and delivers what waits later.
	Degraded []health.State `json:"degraded,omitempty"`
}

// readiness reports whether the relay has reached Kong, ledger and destination once
// since it was started, and the ledger now.
func (s *server) readiness() readiness {
	r := readiness{Ready: true}
	for _, state := range s.health.States() {
		if state.Status != health.Failing {
			continue
		}
		r.Degraded = append(r.Degraded, state)
		if r.Reason == "" {
			r.Reason, r.Hint = string(state.Dependency)+": "+state.Cause, state.Hint
		}
	}
	for _, d := range []health.Dependency{health.Kong, health.Ledger, health.Destination} {
		if state := s.health.State(d); state.Reached && (d != health.Ledger || state.Status == health.OK) {
			continue
		}
		r.Ready = false
		if r.Reason == "" {
			r.Reason = string(d) + " has not been reached yet"
		}
	}
	return r
}

func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	r := s.readiness()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !r.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.MarshalEncode(jsontext.NewEncoder(w), r) // a client that went away
}

// opsHandler serves the operations listener. It runs commands for requests that have the key,
// unless that is empty.
func (s *server) opsHandler(key string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /status", s.cached("application/json", func(ctx context.Context, w io.Writer) error {
		return json.MarshalEncode(jsontext.NewEncoder(w), s.status(ctx))
	}))
	page := s.cached("text/html; charset=utf-8", s.renderPage)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", s.policy)
		w.Header().Set("Referrer-Policy", "no-referrer")
		page(w, r)
	})
	mux.HandleFunc("GET /metrics", s.cached(string(metricsFormat), s.metrics.write))
	if s.showsHistory() {
		mux.HandleFunc("GET /history/{type}/{name}", s.entityHistory)
	}
	if key != "" {
		mux.HandleFunc("POST "+app.CommandPath, s.command(key))
	}
	return mux
}
