package jsonl

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// maxLine is the length in bytes from which a line cannot be an event.
const maxLine = 4 << 20

// Reader asks a file, and what logrotate has made of it, which events it holds.
type Reader struct {
	path string
}

// NewReader returns a Reader of the file that a path names, or nil if the path names
// something that cannot be read again, such as a pipe.
func NewReader(path string) *Reader {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil
	}
	return &Reader{path}
}

// Events yields the events whose own time is from since to until (excluded), Unix
// seconds, in no order that can be relied on, each as often as it is there, and a
// line that is not an event, or is torn, without a UID. An archive that is broken ends in
// such a line. It reads the file and those that
// lie beside it under its name with a number or a date behind it, gzipped or not, and
// holds one line. A file that does not exist holds nothing.
func (r *Reader) Events(ctx context.Context, since, until int64) iter.Seq2[audit.StoredEvent, error] {
	return func(yield func(audit.StoredEvent, error) bool) {
		files, err := r.open()
		for _, f := range files {
			if err == nil {
				err = lines(ctx, f, func(line []byte) bool {
					e := audit.ReadStoredEvent(line)
					return e.UID != "" && (e.Time < since || e.Time >= until) || yield(e, nil)
				})
				if errors.Is(err, errArchive) {
					err = nil // what it held is missing
					if !yield(audit.StoredEvent{}, nil) {
						err = errStop
					}
				}
			}
			err = errors.Join(err, f.Close())
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(audit.StoredEvent{}, fmt.Errorf("reading %s: %w", r.path, err))
		}
	}
}

// rotated matches what comes after a file's name once it was rotated.
var rotated = regexp.MustCompile(`^[.-][0-9][0-9TZ_.:-]*?(\.gz)?$`)

// open opens the file and its rotated ones. It opens the file first, so that one that
// is rotated meanwhile is read once, under either name.
func (r *Reader) open() (files []*os.File, err error) {
	names := []string{r.path}
	siblings, err := os.ReadDir(filepath.Dir(r.path))
	if err != nil {
		return nil, err
	}
	base := filepath.Base(r.path)
	for _, s := range siblings {
		if rest, ok := strings.CutPrefix(s.Name(), base); ok && rotated.MatchString(rest) {
			names = append(names, filepath.Join(filepath.Dir(r.path), s.Name()))
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { // while it is being compressed
		plain, ok := strings.CutSuffix(name, ".gz")
		return ok && slices.Contains(names, plain)
	})
	var infos []fs.FileInfo
	for _, name := range append(names, r.path) { // again: rotated meanwhile, it names a new one
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return files, err
		}
		files = append(files, f)
		info, err := f.Stat()
		if err != nil {
			return files, err
		}
		if slices.ContainsFunc(infos, func(other fs.FileInfo) bool { return os.SameFile(info, other) }) {
			files = files[:len(files)-1]
			if err := f.Close(); err != nil {
				return files, err
			}
			continue
		}
		infos = append(infos, info)
	}
	return files, nil
}

var (
	errStop    = errors.New("stopped")
	errArchive = errors.New("the archive is broken")
)

// archive reads what a gzipped file holds. Its error is errArchive where the file itself can
// be read, but is no archive, or a broken one.
type archive struct {
	file *os.File
	z    *gzip.Reader // nil until something was read
}

func (a *archive) Read(p []byte) (n int, err error) {
	if a.z == nil {
		a.z, err = gzip.NewReader(a.file)
	}
	if err == nil {
		n, err = a.z.Read(p)
		if errors.Is(err, io.EOF) {
			return n, io.EOF
		}
	}
	if _, failed := errors.AsType[*fs.PathError](err); err != nil && !failed {
		err = errArchive
	}
	return n, err
}

// lines calls f with each line of a file, valid during the call, until f returns
// false. What has no line end at the end of
// the file is a line as well.
func lines(ctx context.Context, file *os.File, f func(line []byte) bool) error {
	var in io.Reader = file
	if strings.HasSuffix(file.Name(), ".gz") {
		in = &archive{file: file}
	}
	b := bufio.NewReaderSize(in, 1<<16)
	var long []byte
	for n := 0; ; n++ {
		if n%1000 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		line, err := b.ReadSlice('\n')
		last := errors.Is(err, io.EOF)
		if errors.Is(err, bufio.ErrBufferFull) {
			if len(long) < maxLine {
				long = append(long, line...)
			}
			continue
		}
		if err != nil && !last {
			return err
		}
		if len(long) > 0 {
			line = append(long, line...)
			long = long[:0]
		}
		if len(bytes.TrimSpace(line)) > 0 && !f(line) {
			return errStop
		}
		if last {
			return nil
		}
	}
}
