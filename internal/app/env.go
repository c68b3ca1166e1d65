package app

import (
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/pipeline"
)

// Env is the environment of a command or host.
type Env struct {
	Getenv         func(string) string
	Stdout, Stderr io.Writer
}

// Logger returns a logger for the settings, and logs their warnings.
func (e *Env) Logger(s config.Settings) *slog.Logger {
	log := NewLogger(s, e.Stderr)
	redisconn.LogTo(log)
	for _, w := range s.Warnings {
		log.Warn("setting looks like a mistake", "reason", w)
	}
	return log
}

// NewLogger returns a logger that writes to stderr: text on a terminal, else JSON.
func NewLogger(s config.Settings, stderr io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: s.LogLevel}
	format := s.LogFormat
	if format == "auto" {
		format = "json"
		if IsTerminal(stderr) {
			format = "text"
		}
	}
	if format == "text" {
		return slog.New(slog.NewTextHandler(stderr, o))
	}
	return slog.New(slog.NewJSONHandler(stderr, o))
}

// IsTerminal reports whether a person may be looking.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

const progressEvery = 30 * time.Second

// LogProgress returns a function that logs the progress of a long pass every 30 seconds. It is safe
// for concurrent use.
func LogProgress(log *slog.Logger) func(pipeline.Summary) {
	var (
		mu   sync.Mutex
		last time.Time
	)
	return func(sum pipeline.Summary) {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if now.Sub(last) < progressEvery || sum.Seconds < progressEvery.Seconds() {
			return
		}
		last = now
		log.Info("pass goes on", "kind", string(sum.Kind), "full", sum.Full, "pages", sum.Pages, "read", sum.Read, "new", sum.New,
			"delivered", sum.Delivered, "per_second", strconv.FormatFloat(float64(sum.Read)/sum.Seconds, 'f', 0, 64))
	}
}
