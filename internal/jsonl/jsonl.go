// Package jsonl is a destination that writes each event as a line of JSON.
package jsonl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Writer writes events to a file or to standard output. It is safe for concurrent use.
type Writer struct {
	encode audit.Encode
	path   string // "" for standard output

	mu     sync.Mutex
	stdout io.Writer
	torn   bool // the last line on standard output may lack its end
	file   file // not open for standard output, and after it could not be opened again
}

// Open opens a file for appending, and makes it (readable by this user
// only) if it is missing; "-" is stdout. The caller closes it.
func Open(path string, stdout io.Writer, encode audit.Encode) (*Writer, error) {
	if path == "-" {
		return &Writer{encode: encode, stdout: stdout}, nil
	}
	w := &Writer{encode: encode, path: path}
	if err := w.file.open(path); err != nil {
		return nil, err
	}
	return w, nil
}

// Put writes the entries' events. All are accepted, or none: in a file they are
// durable once it returns nil, and cut off again if they could not all be written.
// If the path names another file than before, or none, Put opens that first.
func (w *Writer) Put(_ context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	verdicts := make([]audit.Verdict, len(entries))
	var lines []byte
	for i := range entries {
		lines = append(w.encode(lines, &entries[i]), '\n')
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.write(lines); err != nil {
		code, err := explain(fmt.Errorf("writing events: %w", err))
		for i := range verdicts {
			verdicts[i] = audit.Verdict{Code: code, Reason: err.Error()}
		}
		return verdicts, err
	}
	for i := range verdicts {
		verdicts[i].Status = audit.Accepted
	}
	return verdicts, nil
}

func (w *Writer) write(lines []byte) error {
	if w.path != "" {
		return w.file.append(w.path, lines)
	}
	if w.torn {
		lines = append([]byte("\n"), lines...)
	}
	_, err := w.stdout.Write(lines)
	w.torn = err != nil
	if errors.Is(err, syscall.EPIPE) {
		return audit.NewSettingsError(err, "run again with something that reads standard output")
	}
	return err
}

// Reopen closes the file and opens what its path names now. If that fails, the next
// Put tries again.
func (w *Writer) Reopen() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.path == "" {
		return nil
	}
	return errors.Join(w.file.close(), w.file.open(w.path))
}

// Check returns nil: opening the file has shown that it can be written.
func (w *Writer) Check(context.Context) error { return nil }

// Close closes the file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.file.close()
}
