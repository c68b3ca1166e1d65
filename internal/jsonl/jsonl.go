// Package jsonl is a destination that writes each event as a line of JSON.
package jsonl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Writer writes events to a file or to standard output. It is safe for concurrent use.
type Writer struct {
	encode func(*audit.Entry) (id string, eventData []byte)

	mu     sync.Mutex
	out    io.Writer
	file   *os.File // nil for standard output
	synced bool     // the file is one that can be synced and cut
	torn   bool     // the last line may lack its end
}

// Open opens a file for appending, and makes it (readable by this user
// only) if it is missing; "-" is stdout. The caller closes it.
func Open(path string, stdout io.Writer, encode func(*audit.Entry) (string, []byte)) (*Writer, error) {
	if path == "-" {
		return &Writer{encode: encode, out: stdout}, nil
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, audit.Settingsf("name a file that this user can write with --destination jsonl:<file>", "opening the destination: %w", err)
	}
	w := &Writer{encode: encode, out: file, file: file}
	if err := w.prepare(path); err != nil {
		return nil, errors.Join(fmt.Errorf("preparing %s: %w", path, err), file.Close())
	}
	return w, nil
}

// prepare ends a line that a crash has torn, and makes the file's name durable.
func (w *Writer) prepare(path string) error {
	info, err := w.file.Stat()
	if err != nil || !info.Mode().IsRegular() { // a pipe or a device takes what it takes
		return err
	}
	w.synced = true
	if size := info.Size(); size > 0 {
		last := make([]byte, 1)
		if _, err := w.file.ReadAt(last, size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			if _, err := w.file.WriteString("\n"); err != nil {
				return err
			}
		}
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Put writes the entries' events. All are accepted, or none: in a file they are
// durable once it returns nil, and cut off again if they could not all be written.
func (w *Writer) Put(_ context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	verdicts := make([]audit.Verdict, len(entries))
	var lines bytes.Buffer
	for i := range entries {
		_, event := w.encode(&entries[i])
		lines.Write(event)
		lines.WriteByte('\n')
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.write(lines.Bytes()); err != nil {
		return verdicts, fmt.Errorf("writing events: %w", err)
	}
	for i := range verdicts {
		verdicts[i].Status = audit.Accepted
	}
	return verdicts, nil
}

func (w *Writer) write(lines []byte) error {
	if w.torn {
		lines = append([]byte("\n"), lines...)
	}
	if !w.synced {
		_, err := w.out.Write(lines)
		w.torn = err != nil
		return err
	}
	before, err := w.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := w.file.Write(lines); err != nil {
		cut := w.file.Truncate(before)
		w.torn = w.torn || cut != nil
		return errors.Join(err, cut)
	}
	w.torn = false
	return w.file.Sync()
}

// Check returns nil: opening the file has shown that it can be written.
func (w *Writer) Check(context.Context) error { return nil }

// Close closes the file.
func (w *Writer) Close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}
