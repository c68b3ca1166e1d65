package config

import (
	"errors"
	"strconv"
	"time"
)

func (l *loader) startAt(text string) error {
	if text == "now" {
		// It would be another time at each start: what a relay missed while it was
		// down, or whose ledger was lost, would be older than that, and skipped.
		return expected("a fixed time", "Give the time itself, such as "+time.Now().UTC().Format(time.RFC3339)+": a now that moves would skip what came while the relay was down.")
	}
	at, err := parseTime(text)
	l.settings.StartAt = at
	return err
}

// parseTime reads a point in time: a date (its midnight in UTC), RFC 3339, or
// Unix seconds.
func parseTime(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), nil
		}
	}
	// Eight digits are more likely a date without its dashes than a day of 1970.
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 100_000_000 && n < 100_000_000_000 {
		return time.Unix(n, 0).UTC(), nil
	}
	return time.Time{}, expected("a date, a time as in RFC 3339, or Unix seconds", "")
}

// maxAhead is how far ahead of the clock a window may begin: entries have the time of the
// control plane that wrote them, whose clock may be wrong.
const maxAhead = 48 * time.Hour

// Window reads the bounds of a span of time and returns Unix seconds, 0 for a side
// that is left open.
func Window(since, until string, now time.Time) (from, to int64, err error) {
	if since != "" {
		if from, err = parseMoment(since, now); err != nil {
			return 0, 0, Usagef("--since is %q: %v", since, err)
		}
	}
	if until != "" {
		if to, err = parseMoment(until, now); err != nil {
			return 0, 0, Usagef("--until is %q: %v", until, err)
		}
	}
	switch {
	case to != 0 && from >= to:
		return 0, 0, Usagef("--since is not before --until")
	case from > now.Add(maxAhead).Unix(), from > now.Unix() && to == 0:
		return 0, 0, Usagef("--since is %q: expected a time in the past, and here it is %s now", since, now.UTC().Format(time.RFC3339))
	}
	return from, to, nil
}

// parseMoment reads a time as parseTime does, or a span back from now.
func parseMoment(text string, now time.Time) (int64, error) {
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d).Unix(), nil
	}
	if t, err := parseTime(text); err == nil && t.Unix() > 0 {
		return t.Unix(), nil
	}
	return 0, errors.New("expected RFC 3339 such as 2026-01-31T12:00:00Z, a date, Unix seconds, or a span back from now such as 36h")
}
