package app

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisledger"
)

// Env is the environment of a command or host.
type Env struct {
	Getenv         func(string) string
	Environ        []string
	Stdout, Stderr io.Writer
}

// Logger returns a logger for the settings, and logs their warnings.
func (e *Env) Logger(s config.Settings) *slog.Logger {
	log := NewLogger(s, e.Stderr)
	redisledger.LogTo(log)
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
