// Package auditlog holds the two logs of an emulated Kong as its database does, and makes
// rows for them.
package auditlog

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"

	"github.com/go-json-experiment/json"
)

// Table holds the rows of a log, encoded, and keeps them sorted in two ways. It is not
// safe for concurrent use.
type Table struct {
	rows   []Record // by row number; deleted ones too: the log of all that was ever held
	byTime []uint32 // row numbers by timestamp, id, number; holds deleted ones, too
	byID   []uint32 // row numbers by id, number; made when it is first needed
	live   int
}

// Add adds rows.
func (t *Table) Add(rows ...Record) {
	t.rows = append(t.rows, rows...)
	t.live += len(rows)
	t.byTime = insert(t.byTime, len(t.rows), t.compareTime)
}

// Len returns the number of rows that are there, expired ones included.
func (t *Table) Len() int { return t.live }

// Records returns the rows that are there, oldest first.
func (t *Table) Records() []Record {
	rows := make([]Record, 0, t.live)
	for _, n := range t.byTime {
		if !t.rows[n].dead {
			rows = append(rows, t.rows[n])
		}
	}
	return rows
}

// Ever returns all rows that were ever there, as they came.
func (t *Table) Ever() []Record { return slices.Clone(t.rows) }

func (t *Table) needByID() { t.byID = insert(t.byID, len(t.rows), t.compareID) }

// insert completes a sorted index of the numbers from 0 to end-1, which lacks the last ones.
func insert(index []uint32, end int, compare func(a, b uint32) int) []uint32 {
	first := len(index)
	for n := first; n < end; n++ {
		index = append(index, uint32(n))
	}
	sorted, added := index[:first], index[first:]
	slices.SortFunc(added, compare)
	switch {
	case first == 0 || len(added) == 0 || compare(sorted[first-1], added[0]) < 0:
	case len(added) > 16:
		slices.SortFunc(index, compare)
	default:
		for _, n := range slices.Clone(added) {
			at, _ := slices.BinarySearchFunc(sorted, n, compare)
			sorted = slices.Insert(sorted, at, n)
		}
		index = sorted
	}
	return index
}

func (t *Table) compareTime(a, b uint32) int {
	return cmp.Or(cmp.Compare(t.rows[a].timestamp, t.rows[b].timestamp), t.compareID(a, b))
}

func (t *Table) compareID(a, b uint32) int {
	return cmp.Or(cmp.Compare(t.rows[a].ID, t.rows[b].ID), cmp.Compare(a, b))
}

// Delete deletes the rows with this id and returns how many there were.
func (t *Table) Delete(id string) int {
	t.needByID()
	at := sort.Search(len(t.byID), func(i int) bool { return t.rows[t.byID[i]].ID >= id })
	end := at
	for end < len(t.byID) && t.rows[t.byID[end]].ID == id {
		end++
	}
	return t.kill(t.byID[at:end])
}

// DeleteBefore deletes the rows with a timestamp before a second and returns how many there were.
func (t *Table) DeleteBefore(second int64) int { return t.kill(t.byTime[:t.firstAt(second)]) }

// firstAt returns where in byTime the rows of a second and later ones begin.
func (t *Table) firstAt(second int64) int {
	return sort.Search(len(t.byTime), func(i int) bool { return t.rows[t.byTime[i]].timestamp >= second })
}

func (t *Table) kill(rows []uint32) int {
	before := t.live
	for _, n := range rows {
		if r := &t.rows[n]; !r.dead {
			r.dead = true
			t.live--
		}
	}
	return before - t.live
}

// Selection says which rows a page shows, and in which order.
type Selection struct {
	ByID   bool  // in the order of ids, of all times
	Oldest bool  // oldest first, else newest first
	From   int64 // timestamps: at least this one
	Until  int64 // and before this one
	Size   int
	After  *Place // go on there
	Now    int64  // rows that have expired by then are not shown
}

// Place is where a page goes on: behind the row of a key, whatever has come or gone
// meanwhile, or else behind so many rows.
type Place struct {
	Timestamp int64  `json:"timestamp"`
	ID        []byte `json:"id"`
	Number    uint32 `json:"number"`
	Skip      int64  `json:"skip"`
}

// offsetMark makes an offset begin with a plus sign, so that a client has to escape it.
const offsetMark = "\xfb"

// Offset returns a place as Kong hands it out: base64 that is not made safe for URLs.
func (p *Place) Offset() string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // numbers and bytes always encode
	}
	return base64.StdEncoding.EncodeToString(append([]byte(offsetMark), text...))
}

// ParseOffset is the inverse of [Place.Offset].
func ParseOffset(s string) (*Place, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	text, ok := strings.CutPrefix(string(b), offsetMark)
	var p Place
	if err != nil || !ok || json.Unmarshal([]byte(text), &p, json.RejectUnknownMembers(true)) != nil || p.Skip < 0 {
		return nil, errors.New("bad encoding")
	}
	return &p, nil
}

func (t *Table) comparePlace(n uint32, p *Place, byID bool) int {
	r := &t.rows[n]
	if !byID && r.timestamp != p.Timestamp {
		return cmp.Compare(r.timestamp, p.Timestamp)
	}
	return cmp.Or(cmp.Compare(r.ID, string(p.ID)), cmp.Compare(n, p.Number))
}

// Page returns the rows that q selects, and where the next page goes on, or nil at the end.
func (t *Table) Page(q Selection) (rows []Record, next *Place) {
	skip, last := int64(0), uint32(0)
	if q.After != nil {
		skip = q.After.Skip
	}
	left := skip
	for n := range t.selected(q) {
		switch r := &t.rows[n]; {
		case r.dead || r.expires <= q.Now:
		case left > 0:
			left--
		case len(rows) == q.Size:
			r := &t.rows[last]
			return rows, &Place{r.timestamp, []byte(r.ID), last, skip + int64(len(rows))}
		default:
			rows, last = append(rows, *r), n
		}
	}
	return rows, nil
}

// selected yields the numbers of the rows from which a page is made, in its order.
func (t *Table) selected(q Selection) iter.Seq[uint32] {
	index := t.byTime
	if q.ByID {
		t.needByID()
		index = t.byID
	} else {
		first := t.firstAt(q.From)
		index = index[first:max(first, t.firstAt(q.Until))]
	}
	forward := q.ByID || q.Oldest
	if p := q.After; p != nil && p.Skip == 0 {
		at := sort.Search(len(index), func(i int) bool {
			c := t.comparePlace(index[i], p, q.ByID)
			return c > 0 || c == 0 && !forward
		})
		if forward {
			index = index[at:]
		} else {
			index = index[:at]
		}
	}
	return func(yield func(uint32) bool) {
		for i := range index {
			if !forward {
				i = len(index) - 1 - i
			}
			if !yield(index[i]) {
				return
			}
		}
	}
}

// AppendTo appends to dst what a page shows of a row.
func (r *Record) AppendTo(dst []byte, now int64, withTime bool) []byte {
	dst = append(dst, '{')
	if withTime && !r.noTime {
		dst = fmt.Appendf(dst, `"request_timestamp":%d,`, r.timestamp)
	}
	if !r.noTTL {
		dst = fmt.Appendf(dst, `"ttl":%d,`, r.expires-now)
	}
	return append(dst, r.tail...)
}
