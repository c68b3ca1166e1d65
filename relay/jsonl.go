package main

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

// jsonLines is a destination that writes each event as a line of JSON, to a file or
// to standard output. It is safe for concurrent use.
type jsonLines struct {
	encode func(*audit.Entry) (id string, eventData []byte)

	mu     sync.Mutex
	out    io.Writer
	file   *os.File // nil for standard output
	synced bool     // the file is one that can be synced and cut
	torn   bool     // the last line may lack its end
}

// newJSONLines opens a file for appending, and makes it (readable by this user
// only) if it is missing; "-" is stdout. The caller closes it.
func newJSONLines(path string, stdout io.Writer, encode func(*audit.Entry) (string, []byte)) (*jsonLines, error) {
	if path == "-" {
		return &jsonLines{encode: encode, out: stdout}, nil
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, audit.Settingsf("Name a file that this user can write with --destination jsonl:<file>.", "opening the destination: %w", err)
	}
	j := &jsonLines{encode: encode, out: file, file: file}
	if err := j.prepare(path); err != nil {
		return nil, errors.Join(fmt.Errorf("preparing %s: %w", path, err), file.Close())
	}
	return j, nil
}

// prepare ends a line that a crash has torn, and makes the file's name durable.
func (j *jsonLines) prepare(path string) error {
	info, err := j.file.Stat()
	if err != nil || !info.Mode().IsRegular() { // a pipe or a device takes what it takes
		return err
	}
	j.synced = true
	if size := info.Size(); size > 0 {
		last := make([]byte, 1)
		if _, err := j.file.ReadAt(last, size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			if _, err := j.file.WriteString("\n"); err != nil {
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
func (j *jsonLines) Put(_ context.Context, entries []audit.Entry) ([]audit.Verdict, error) {
	verdicts := make([]audit.Verdict, len(entries))
	var lines bytes.Buffer
	for i := range entries {
		_, event := j.encode(&entries[i])
		lines.Write(event)
		lines.WriteByte('\n')
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.write(lines.Bytes()); err != nil {
		return verdicts, fmt.Errorf("writing events: %w", err)
	}
	for i := range verdicts {
		verdicts[i].Status = audit.Accepted
	}
	return verdicts, nil
}

func (j *jsonLines) write(lines []byte) error {
	if j.torn {
		lines = append([]byte("\n"), lines...)
	}
	if !j.synced {
		_, err := j.out.Write(lines)
		j.torn = err != nil
		return err
	}
	before, err := j.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := j.file.Write(lines); err != nil {
		cut := j.file.Truncate(before)
		j.torn = j.torn || cut != nil
		return errors.Join(err, cut)
	}
	j.torn = false
	return j.file.Sync()
}

// Check has nothing to find out: opening the file has shown that it can be written.
func (j *jsonLines) Check(context.Context) error { return nil }

// Close closes the file.
func (j *jsonLines) Close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
