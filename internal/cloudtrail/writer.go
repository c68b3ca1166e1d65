package cloudtrail

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// writer appends JSON to a buffer, within limits in bytes, and remembers what it had to
// cut. The zero value is ready; reset makes it so again.
type writer struct {
	buf  []byte
	cuts []cut
	tmp  []byte
	end  int // the length of buf that the object begun by open must not exceed
}

// cut is a value that was too large for its place in the event.
type cut struct {
	path  string
	bytes int // its size before
	sum   [sha256.Size]byte
}

func (w *writer) reset() {
	w.buf, w.cuts = w.buf[:0], w.cuts[:0]
}

func (w *writer) raw(s string) { w.buf = append(w.buf, s...) }

// quote appends s as a JSON string. Each byte that is not UTF-8 becomes U+FFFD.
func (w *writer) quote(s string) {
	// The only error is that there were such bytes.
	w.buf, _ = jsontext.AppendQuote(w.buf, s)
}

// open begins an object that takes at most limit bytes, braces included.
func (w *writer) open(limit int) {
	w.end = len(w.buf) + limit
	w.raw(`{`)
}

// left returns how many bytes the next value of the object may take if another reserve
// bytes and the closing brace are to follow it.
func (w *writer) left(reserve int) int {
	return w.end - len(w.buf) - 1 - reserve
}

func (w *writer) key(name string) {
	if w.buf[len(w.buf)-1] != '{' {
		w.raw(`,`)
	}
	w.raw(`"`)
	w.raw(name)
	w.raw(`":`)
}

// field appends a string of at most limit bytes, not counting quotes and escapes. If it
// cuts s, object and key say where that is in the event.
func (w *writer) field(object, key, s string, limit int) {
	// A byte that is not UTF-8 becomes the three bytes of U+FFFD.
	if 3*len(s) > limit {
		size := 0
		for i, r := range s {
			if size += utf8.RuneLen(r); size > limit {
				w.cut(object+key, s)
				s = s[:i]
				break
			}
		}
	}
	w.quote(s)
}

// text appends a string of at most limit bytes, quotes and escapes included.
func (w *writer) text(object, key, s string, limit int) {
	fits := audit.Fit(s, limit)
	if len(fits) < len(s) {
		w.cut(object+key, s)
	}
	w.quote(fits)
}

// object appends s as it stands if it is a JSON object of at most limit bytes,
// and as a string otherwise.
func (w *writer) object(object, key, s string, limit int) {
	o := strings.Trim(s, " \t\r\n")
	if len(o) <= limit && w.isObject(o) {
		if !utf8.ValidString(o) {
			o = string([]rune(o)) // replaces each byte that is not UTF-8, as quote does
		}
		if len(o) <= limit {
			w.raw(o)
			return
		}
	}
	w.text(object, key, s, limit)
}

// cut notes that the value at a path was cut.
func (w *writer) cut(path, original string) {
	h := sha256.New()
	chunk := make([]byte, 4096) // a conversion would copy up to 10 MiB at once
	for rest := original; rest != ""; {
		n := copy(chunk, rest)
		h.Write(chunk[:n])
		rest = rest[n:]
	}
	c := cut{path: path, bytes: len(original)}
	h.Sum(c.sum[:0])
	w.cuts = append(w.cuts, c)
}

// truncated appends the object that describes what was cut.
func (w *writer) truncated() {
	w.raw(`{`)
	for _, c := range w.cuts {
		w.key(c.path)
		w.raw(`{"bytes":`)
		w.number(int64(c.bytes))
		w.raw(`,"sha256":"`)
		w.buf = hex.AppendEncode(w.buf, c.sum[:])
		w.raw(`"}`)
	}
	w.raw(`}`)
}

// isObject reports whether s is a JSON object that can be embedded as it is.
func (w *writer) isObject(s string) bool {
	if !strings.HasPrefix(s, "{") {
		return false
	}
	w.tmp = append(w.tmp[:0], s...)
	return audit.IsObject(w.tmp)
}
