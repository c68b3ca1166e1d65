package kongtest

import (
	"cmp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// store holds rows, encoded, and keeps them sorted in two ways. It is not safe for
// concurrent use.
type store struct {
	rows   []record // by row number; deleted ones too: the log of all that was ever held
	byTime []uint32 // row numbers by timestamp, id, number; holds deleted ones, too
	byID   []uint32 // row numbers by id, number; made when it is first needed
	inByID int      // how many rows byID knows
	live   int
}

// record is a row. Its text is what does not depend on when it is shown: fields, each after
// a comma.
type record struct {
	timestamp int64
	expires   int64 // Unix seconds
	id, text  string
	noTime    bool // it has no request_timestamp
	noTTL     bool
	dead      bool
}

// add appends a row; index must be called before the next read.
func (s *store) add(row *Row, expires int64, omit []string) {
	s.rows = append(s.rows, encode(row, expires, omit))
	s.live++
}

// index takes the rows from number first on into the order by time.
func (s *store) index(first int) {
	s.byTime = insert(s.byTime, first, len(s.rows), s.compareTime)
}

func (s *store) needByID() {
	s.byID = insert(s.byID, s.inByID, len(s.rows), s.compareID)
	s.inByID = len(s.rows)
}

// insert puts the numbers first to end-1 into a sorted index.
func insert(index []uint32, first, end int, compare func(a, b uint32) int) []uint32 {
	batch := make([]uint32, 0, end-first)
	for n := first; n < end; n++ {
		batch = append(batch, uint32(n))
	}
	if len(batch) == 0 {
		return index
	}
	slices.SortFunc(batch, compare)
	if len(index) == 0 || compare(index[len(index)-1], batch[0]) < 0 {
		return append(index, batch...)
	}
	if len(batch) > 16 {
		index = append(index, batch...)
		slices.SortFunc(index, compare)
		return index
	}
	for _, n := range batch {
		at, _ := slices.BinarySearchFunc(index, n, compare)
		index = slices.Insert(index, at, n)
	}
	return index
}

func (s *store) compareTime(a, b uint32) int {
	return cmp.Or(cmp.Compare(s.rows[a].timestamp, s.rows[b].timestamp), s.compareID(a, b))
}

func (s *store) compareID(a, b uint32) int {
	return cmp.Or(cmp.Compare(s.rows[a].id, s.rows[b].id), cmp.Compare(a, b))
}

// deleteID deletes the rows with this id and returns how many there were.
func (s *store) deleteID(id string) int {
	s.needByID()
	count := 0
	at := sort.Search(len(s.byID), func(i int) bool { return s.rows[s.byID[i]].id >= id })
	for ; at < len(s.byID) && s.rows[s.byID[at]].id == id; at++ {
		if s.kill(s.byID[at]) {
			count++
		}
	}
	return count
}

// deleteBefore deletes the rows with a timestamp before t.
func (s *store) deleteBefore(t int64) int {
	count := 0
	for _, n := range s.byTime {
		if s.rows[n].timestamp >= t {
			break
		}
		if s.kill(n) {
			count++
		}
	}
	return count
}

func (s *store) kill(n uint32) bool {
	r := &s.rows[n]
	if r.dead {
		return false
	}
	r.dead = true
	s.live--
	return true
}

// selection says which rows a page shows, and in which order.
type selection struct {
	order    Order
	oldest   bool  // Filtered only: oldest first
	from, to int64 // Filtered only: timestamps, both inclusive
	size     int
	after    *key  // go on after this one, or
	skip     int64 // leave out so many
	now      int64 // rows that have expired by then are not shown
}

// key is what an offset holds: where a row stands in either order.
type key struct {
	timestamp int64
	id        string
	number    uint32
}

func (s *store) key(n uint32) key {
	r := &s.rows[n]
	return key{r.timestamp, r.id, n}
}

func (s *store) compareKey(n uint32, k *key, order Order) int {
	r := &s.rows[n]
	if order != Unordered && r.timestamp != k.timestamp {
		return cmp.Compare(r.timestamp, k.timestamp)
	}
	return cmp.Or(cmp.Compare(r.id, k.id), cmp.Compare(n, k.number))
}

// page returns the rows that q selects. last is the key of the last of them, and more says
// whether others follow.
func (s *store) page(q selection) (rows []record, last key, more bool) {
	index := s.byTime
	if q.order == Unordered {
		s.needByID()
		index = s.byID
	}
	lo, hi := 0, len(index) // candidates
	if q.order == Filtered {
		lo = sort.Search(len(index), func(i int) bool { return s.rows[index[i]].timestamp >= q.from })
		hi = sort.Search(len(index), func(i int) bool { return s.rows[index[i]].timestamp > q.to })
	}
	forward := q.order == Unordered || q.oldest
	if q.after != nil {
		if forward {
			lo = max(lo, sort.Search(len(index), func(i int) bool { return s.compareKey(index[i], q.after, q.order) > 0 }))
		} else {
			hi = min(hi, sort.Search(len(index), func(i int) bool { return s.compareKey(index[i], q.after, q.order) >= 0 }))
		}
	}
	var lastNumber uint32
	for skip, count := q.skip, 0; lo < hi; {
		var n uint32
		if forward {
			n = index[lo]
			lo++
		} else {
			hi--
			n = index[hi]
		}
		r := &s.rows[n]
		if r.dead || r.expires <= q.now {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if count == q.size {
			return rows, s.key(lastNumber), true
		}
		rows = append(rows, *r)
		lastNumber = n
		count++
	}
	return rows, key{}, false
}

// shown says which fields a release has.
type shown struct{ ttl, time bool }

// parts returns the row as an object without its last brace: what depends on when it is
// shown, in dst, and the rest.
func (r *record) parts(dst []byte, now int64, fields shown) (head []byte, text string) {
	head = append(dst, '{')
	if !r.noTime && fields.time {
		head = strconv.AppendInt(append(head, `"request_timestamp":`...), r.timestamp, 10)
	}
	if !r.noTTL && fields.ttl {
		if len(head) > len(dst)+1 {
			head = append(head, ',')
		}
		head = strconv.AppendInt(append(head, `"ttl":`...), r.expires-now, 10)
	}
	if len(head) == len(dst)+1 {
		return head, strings.TrimPrefix(r.text, ",")
	}
	return head, r.text
}
