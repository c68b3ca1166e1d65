package objects

import (
	"bytes"
	"compress/flate"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/changes"
)

// row is a row of /audit/objects.
type row struct {
	id, request string
	dao, key    string
	operation   string
	t           int64         // Unix seconds; the time of its request if it has none; 0 if the request has not shown up
	dated       bool          // Kong gave t
	text        changes.State // the entity after a create or an update, before a delete
	expires     time.Time
	known       bool // it was applied before
	sight
	// When its change was made, and announced if it was, by this machine's clock; see noticed.
	madeAfter, madeBefore, announced time.Time
	lost                             bool // its request will not show up
}

func (r *row) entity() string { return r.dao + "/" + r.key }

// state is the last known state of an entity.
type state struct {
	T     int64  `json:"t"`              // of its row or request, whichever is later
	Prior int64  `json:"prior,omitzero"` // T of the state before
	Row   string `json:"row"`
	// Operation is the row's.
	Operation string `json:"operation"`
	// Patched are the fields that its request named, if that is known.
	Patched []string `json:"patched,omitempty"`
	Joined  bool     `json:"joined,omitzero"` // the request of the row has shown up
	// Doubtful: another row may be later than this state's.
	Doubtful bool `json:"doubtful,omitzero"`
	// Rival is the state of that other row, if there is just one.
	Rival changes.State `json:"rival,omitzero"`
	Gone  bool          `json:"gone,omitzero"`  // deleted
	Large bool          `json:"large,omitzero"` // too large to be remembered

	text    changes.State
	expires time.Time
}

// rival notes that another state may be later, which makes s doubtful.
func (s *state) rival(o *state) {
	s.Rival = ""
	if certain := func(s *state) bool { return s.Joined && !s.Doubtful && !s.Gone && !s.Large }; certain(s) && certain(o) {
		s.Rival = o.text
	}
	s.Doubtful = true
}

// precedes reports whether s can be the state before the change of a row.
func (s *state) precedes(x *row) bool {
	return s != nil && !s.Large && !s.Gone && !x.known && s.Row != x.id
}

func stateKey(entity string) string { return "state:" + entity }

func (s *state) encode() []byte {
	if len(s.text) > maxState {
		s.Large, s.text = true, ""
	}
	if len(s.text)+len(s.Rival) > maxState {
		s.Rival = ""
	}
	head, err := json.Marshal(s)
	if err != nil { // of texts and numbers
		return nil
	}
	return deflate(append(append(head, '\n'), s.text...))
}

func decodeState(b []byte) *state {
	head, text, ok := bytes.Cut(inflate(b), []byte{'\n'})
	s := &state{}
	if !ok || json.Unmarshal(head, s) != nil {
		return nil
	}
	s.text = changes.State(text)
	return s
}

// meta is what is known of the rows as a whole.
type meta struct {
	// Enabled is when the first rows were read. Rows from before are not late.
	Enabled int64 `json:"enabled"`
	// Through is the second up to which rows have been read.
	Through int64 `json:"through"`
	// Gap is the last second before which rows may have been missed.
	Gap int64 `json:"gap,omitzero"`
	// Unannounced is when the last write was met that was not announced, or when the first
	// rows were read.
	Unannounced int64 `json:"unannounced,omitzero"`
	// Newest is the newest row that was seen. If it is gone, others may have been purged
	// unread.
	Newest witness `json:"newest"`
	// Open are the writes that were put without rows.
	Open []openWrite `json:"open,omitempty"`
}

type witness struct {
	ID      string `json:"id,omitempty"`
	T       int64  `json:"t,omitzero"`
	Expires int64  `json:"expires,omitzero"`
}

// openWrite is a write without rows: what it changed is not known.
type openWrite struct {
	ID     string `json:"id"`
	T      int64  `json:"t"` // 0 if Kong did not give it
	Method string `json:"method"`
	Path   string `json:"path"`
}

func decodeMeta(b []byte) (m meta) {
	if err := json.Unmarshal(inflate(b), &m); err != nil {
		return meta{}
	}
	return m
}

func (m *meta) encode() []byte {
	b, err := json.Marshal(m)
	if err != nil { // of texts and numbers
		return nil
	}
	return deflate(b)
}

func (m *meta) clone() meta {
	c := *m
	c.Open = slices.Clone(m.Open)
	return c
}

// open notes a write that is put without rows.
func (m *meta) open(o openWrite) {
	o.Path = strings.Clone(o.Path[:min(len(o.Path), 500)])
	m.Open = append(m.Open, o)
	for len(m.Open) > maxOpen {
		m.Gap = max(m.Gap, m.Open[0].T)
		m.Open = m.Open[1:]
	}
}

// The first byte of a stored value says whether the rest is compressed.
const (
	plain      = 'p'
	compressed = 'z'
)

func deflate(b []byte) []byte {
	if len(b) < 400 {
		return append([]byte{plain}, b...)
	}
	var out bytes.Buffer
	out.WriteByte(compressed)
	w, _ := flate.NewWriter(&out, flate.BestSpeed) // the level is one
	_, _ = w.Write(b)                              // into memory
	_ = w.Close()
	if out.Len() > len(b) {
		return append([]byte{plain}, b...)
	}
	return out.Bytes()
}

func inflate(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if b[0] == plain {
		return b[1:]
	}
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b[1:])), 4*maxState))
	if err != nil {
		return nil
	}
	return text
}
