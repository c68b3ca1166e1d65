package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// healthPath is answered beside AWS's calls, which have no such path. The
// Admin API's paths are all Kong's.
const healthPath = "/healthz"

// awsOf answers both services on one address.
func awsOf(logs, trail http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cloudwatchtest.Serves(r) {
			logs.ServeHTTP(w, r)
		} else {
			trail.ServeHTTP(w, r)
		}
	})
}

func withHealth(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != healthPath || r.Method != http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n") // a client that went away
	})
}

// health asks the emulator that listens at an address whether it is alive. To connect to every
// address of a machine is to connect to this one.
func health(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+healthPath, http.NoBody)
	if err != nil {
		return fmt.Errorf("asking for health: %w", err)
	}
	transport := &http.Transport{DisableKeepAlives: true} // and no proxy
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("asking for health: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking for health: %s", resp.Status)
	}
	return nil
}

// logged logs Admin requests, without query and body: both can hold secrets.
// Reads of the audit log are for those who look for them.
func logged(log *slog.Logger) func(kongtest.Request) {
	return func(r kongtest.Request) {
		level := slog.LevelInfo
		if strings.HasPrefix(r.Path, "/audit/") {
			level = slog.LevelDebug
		}
		log.Log(context.Background(), level, "admin request", "method", r.Method, "path", r.Path,
			"status", r.Status, "request_id", r.RequestID, "ms", time.Since(r.Time).Milliseconds())
	}
}
