// Package secret holds texts that must not be seen, such as tokens and passwords, and
// reads them where they are: in a variable, a file or Secrets Manager.
package secret

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// redacted is what a secret shows of itself.
const redacted = "[redacted]"

// reloadPause is the least time between two readings that [Secret.Fetch]
// asks for: a token that stays wrong must not become a flood of calls.
const reloadPause = 5 * time.Second

// Secret is a text that must not be seen: a token, a password, a key. It cannot
// print itself, in any format. The zero value is a secret that is not set.
//
// It knows where the text is rather than the text: in a variable, a file, or
// Secrets Manager. A file or Secrets Manager is asked again after a while, so
// that a rotated secret is picked up without a restart. Copies share what was
// read. It is safe for concurrent use.
type Secret struct{ state *state }

// Source is where a secret is. Read and Where are required.
type Source struct {
	Where string                                    // for errors: the setting, and the file or ARN
	Read  func(ctx context.Context) (string, error) // errors without the text
	Check func(string) error                        // nil: any text will do; errors without the text
	// Refresh is how long a reading is good; 0 means always.
	Refresh time.Duration
	// Changed returns when the text was last changed where it is; nil, or the zero time,
	// if that is not known.
	Changed func() time.Time
}

// state is what was last read of a secret.
type state struct {
	Source

	turn chan struct{} // holds one token, which guards the fields below
	// text returns what was read. It is a function because fmt prints whatever an
	// unexported field holds, except inside a function.
	text     func() string
	at       time.Time // when text was read; zero: never
	tried    time.Time // when it was last asked for
	stale    bool      // text was refused somewhere: see Fetch
	outdated bool      // set by Refresh
}

// New returns the secret of a source.
func New(source Source) Secret {
	s := &state{Source: source, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return Secret{s}
}

// File returns the source of a secret in a file, which readFile reads.
func File(path string, readFile func(string) ([]byte, error)) Source {
	return Source{
		Read: func(context.Context) (string, error) {
			text, err := readFile(path)
			return string(text), err
		},
		Changed: func() time.Time {
			info, err := os.Stat(path)
			if err != nil {
				return time.Time{}
			}
			return info.ModTime()
		},
	}
}

// Changed returns when the text was last changed where it is: the time of its file, or
// of its version in Secrets Manager; zero if that is not known.
func (s Secret) Changed() time.Time {
	if s.state == nil || s.state.Changed == nil {
		return time.Time{}
	}
	return s.state.Changed()
}

// IsSet reports whether there is a secret at all.
func (s Secret) IsSet() bool { return s.state != nil }

// Reveal returns the text, without space around it; "" if the secret is not set.
// It may read a file or call Secrets Manager. If that fails while an earlier
// text is known that nobody has refused, it returns the earlier one.
func (s Secret) Reveal(ctx context.Context) (string, error) {
	if s.state == nil {
		return "", nil
	}
	return s.state.reveal(ctx)
}

// Refresh notes that the text may be out of date: the next Reveal reads it again, at
// most once in five seconds. Unlike one that was refused, a text that cannot be read again
// stays good: whoever does not know a secret can cause this.
func (s Secret) Refresh() {
	if s.state != nil && s.state.Refresh != 0 {
		s.state.mark(&s.state.outdated)
	}
}

func (s *state) mark(flag *bool) {
	<-s.turn
	*flag = true
	s.turn <- struct{}{}
}

// Fetch is Reveal. If fresh is set, the text was refused (by a 401, or NOAUTH): it is read
// again, at most once in five seconds.
func (s Secret) Fetch(ctx context.Context, fresh bool) (string, error) {
	if fresh && s.state != nil {
		s.state.mark(&s.state.stale)
	}
	return s.Reveal(ctx)
}

func (s *state) reveal(ctx context.Context) (string, error) {
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return "", fmt.Errorf("reading %s: %w", s.Where, ctx.Err())
	}
	// By the wall, which may be set back: a Lambda function's other clock stands still while it is frozen.
	now := time.Now().Round(0)
	known := !s.at.IsZero()
	due := !known || s.stale || s.outdated || s.Refresh > 0 && now.Sub(s.at).Abs() >= s.Refresh
	if known && (!due || now.Sub(s.tried).Abs() < reloadPause) {
		return s.text(), nil
	}
	s.tried = now
	text, err := s.load(ctx)
	if err != nil && known && !s.stale {
		return s.text(), nil // it was good a while ago; who refuses it says so, to Fetch
	}
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", s.Where, err)
	}
	s.text, s.at, s.stale, s.outdated = func() string { return text }, now, false, false
	return text, nil
}

// Try reads the text and checks it, and keeps nothing of it.
func (s Secret) Try(ctx context.Context) error {
	_, err := s.state.load(ctx)
	return err
}

func (s *state) load(ctx context.Context) (string, error) {
	text, err := s.Read(ctx)
	if err != nil {
		return "", err
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return "", ErrEmpty
	}
	if s.Check != nil {
		if err := s.Check(text); err != nil {
			return "", err
		}
	}
	return text, nil
}

// ErrEmpty is the error of a secret without text.
var ErrEmpty = errors.New("it is empty")

// Format implements [fmt.Formatter], for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements [fmt.Stringer].
func (s Secret) String() string { return redacted }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler].
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
