package jsonl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const (
	// maxMoves bounds how often the same lines are written because the file was moved
	// or removed while they were.
	maxMoves = 3
	// maxStall is how long the reader of a pipe may take nothing.
	maxStall = 10 * time.Second
)

// file is the open file. The zero value is closed.
type file struct {
	f       *os.File    // nil while it is closed
	info    fs.FileInfo // of f when it was opened
	regular bool        // it can be synced and cut; not a pipe or a device
	torn    bool        // the last line may lack its end
}

// open opens what the path names, or makes it.
func (f *file) open(path string) error {
	// A regular file is read to see how it ends. A pipe must not be opened for reading:
	// it would then always have a reader. One that has none is an error at once.
	flags := os.O_RDWR
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		flags = os.O_WRONLY | syscall.O_NONBLOCK
	}
	opened, err := os.OpenFile(path, flags|os.O_CREATE|os.O_APPEND, 0o600)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return audit.WithHint(fmt.Errorf("opening the destination: nothing reads the pipe: %w", err), "start what reads the pipe")
	case lasting(err):
		return audit.SettingsErrorf("name a file that this user can write with --destination jsonl:<file>", "opening the destination: %w", err)
	case err != nil:
		return fmt.Errorf("opening the destination: %w", err)
	}
	*f = file{f: opened}
	if err := f.prepare(path); err != nil {
		return errors.Join(fmt.Errorf("preparing %s: %w", path, err), f.close())
	}
	return nil
}

// lasting reports whether opening a file again will fail in the same way until a
// person acts.
func lasting(err error) bool {
	for _, e := range []error{fs.ErrNotExist, fs.ErrPermission, syscall.EISDIR, syscall.ENOTDIR, syscall.EROFS, syscall.ELOOP, syscall.ENAMETOOLONG} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// prepare ends a line that a crash has torn, and makes the file's name durable.
func (f *file) prepare(path string) error {
	info, err := f.f.Stat()
	if err != nil {
		return err
	}
	f.info, f.regular = info, info.Mode().IsRegular()
	if !f.regular { // a pipe or a device
		return nil
	}
	if size := info.Size(); size > 0 {
		last := make([]byte, 1)
		if _, err := f.f.ReadAt(last, size-1); err != nil {
			return err
		}
		f.torn = last[0] != '\n'
	}
	dir, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrPermission) {
		return nil // a directory that can be written and not read cannot be synced
	}
	if err != nil {
		return err
	}
	err = dir.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // some file systems cannot sync a directory
	}
	return errors.Join(err, dir.Close())
}

// append writes lines to the file that the path names, and makes them durable. If
// the file was moved or removed meanwhile, whoever did so may have read it already,
// so the lines are written again to the one that has the name now.
func (f *file) append(path string, lines []byte) error {
	for range maxMoves {
		if !f.named(path) {
			if err := errors.Join(f.close(), f.open(path)); err != nil {
				return err
			}
		}
		before, after, err := f.write(lines)
		if err != nil {
			return err
		}
		named := f.named(path) // then whoever moves the file later finds the lines in it
		if err := f.sync(before, after); err != nil || named {
			return err
		}
	}
	return fmt.Errorf("%s was moved or removed while it was written, %d times", path, maxMoves)
}

// named reports whether the file is open and the path still names it.
func (f *file) named(path string) bool {
	if f.f == nil {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && os.SameFile(info, f.info)
}

// write appends lines, all or none. It returns the file's size before and after.
func (f *file) write(lines []byte) (before, after int64, err error) {
	if f.torn {
		lines = append([]byte("\n"), lines...)
	}
	if !f.regular {
		return 0, 0, f.pass(lines)
	}
	if before, err = f.f.Seek(0, io.SeekEnd); err != nil {
		return 0, 0, err
	}
	n, err := f.f.Write(lines)
	after = before + int64(n)
	if err != nil {
		return 0, 0, errors.Join(err, f.cut(before, after))
	}
	return before, after, nil
}

// sync makes what write has appended durable, or cuts it off.
func (f *file) sync(before, after int64) error {
	if !f.regular {
		return nil
	}
	if err := f.f.Sync(); err != nil {
		return errors.Join(err, f.cut(before, after))
	}
	f.torn = false
	return nil
}

// pass writes lines to a pipe or a device.
func (f *file) pass(lines []byte) error {
	_ = f.f.SetWriteDeadline(time.Now().Add(maxStall)) // not every device has deadlines
	n, err := f.f.Write(lines)
	switch {
	case err == nil:
		f.torn = false
	case errors.Is(err, syscall.EPIPE): // the pipe's next reader begins with a new line
		return errors.Join(err, f.close())
	case n > 0:
		f.torn = true
	}
	return err
}

// cut removes what was appended by a write that failed, unless the file has another
// size than that write left: then somebody else writes it, too.
func (f *file) cut(before, after int64) error {
	if before == after {
		return nil
	}
	torn := f.torn
	f.torn = true
	info, err := f.f.Stat()
	if err != nil || info.Size() != after {
		return err
	}
	if err := f.f.Truncate(before); err != nil {
		return err
	}
	f.torn = torn
	return nil
}

func (f *file) close() error {
	if f.f == nil {
		return nil
	}
	err := f.f.Close()
	*f = file{}
	return err
}

// explain returns an error of a write with what to do about it, and a code. None of
// these is about the entries.
func explain(err error) (code string, explained error) {
	switch {
	case audit.NeedsPerson(err):
		return "DestinationNotWritable", err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		code, err = "DiskFull", audit.WithHint(err, "make room on the destination's file system, or raise its quota or the limit of a file's size")
	case errors.Is(err, syscall.EPIPE):
		code, err = "ReaderGone", audit.WithHint(err, "start what reads the events again")
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		code, err = "DestinationNotWritable", audit.WithHint(err, "let this user write the destination's file")
	default:
		code, err = "WriteFailed", audit.WithHint(err, "look at the destination's file and its file system")
	}
	return code, &audit.DestinationError{Err: err}
}
