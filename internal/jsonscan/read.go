package jsonscan

import (
	"errors"
	"io"
	"slices"
	"unsafe"
)

// ErrTooLong ends a Read of more than it was allowed.
var ErrTooLong = errors.New("text is too long")

// Read reads a text of at most limit bytes to its end. size is its length, if that
// is known, and less than 0 if not. After an error it returns what was read.
func Read(r io.Reader, size, limit int64) (string, error) {
	room := min(size, limit) + 1 // one byte more, to see the end
	if size < 0 {
		room = min(64<<10, limit+1)
	}
	b := make([]byte, 0, room)
	// Nothing changes what has been read any more: a text of it needs no copy.
	text := func() string { return unsafe.String(unsafe.SliceData(b), len(b)) } //nolint:gosec // see above
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return text(), ErrTooLong
		case err == io.EOF:
			return text(), nil
		case err != nil:
			return text(), err
		case len(b) == cap(b):
			b = slices.Grow(b, len(b))
		}
	}
}
